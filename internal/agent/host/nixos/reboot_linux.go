package nixos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// errNoLogind: logind cannot be asked, or says that it cannot reboot.
var errNoLogind = errors.New("logind does not reboot this machine")

// Reboot asks logind, which tells everybody first; where there is none, systemd
// itself, to stop all units and boot. Never systemd's own call Reboot: that stops
// no unit. Somebody who blocks a shutdown is not overruled.
func (m *Machine) Reboot(ctx context.Context) error {
	// What is in the logs of the way here is wanted afterwards; its failure stops nothing.
	_, _ = m.run(ctx, command{name: "journalctl", args: []string{"--sync"}})
	err := rebootByLogind(ctx)
	if errors.Is(err, errNoLogind) {
		err = talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
			_, err := c.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}

// Names of logind's.
const (
	logind        = "org.freedesktop.login1"
	logindManager = logind + ".Manager"
	logindPath    = "/org/freedesktop/login1"
)

// rebootByLogind needs the message bus, which may be what is broken.
func rebootByLogind(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("%w: %w", errNoLogind, err)
	}
	defer bus.Close() // nothing is under way
	manager := bus.Object(logind, logindPath)
	var can string
	if err := manager.CallWithContext(ctx, logindManager+".CanReboot", 0).Store(&can); err != nil {
		return fmt.Errorf("%w: %w", errNoLogind, err)
	}
	if can != "yes" {
		return fmt.Errorf("%w: CanReboot says %q", errNoLogind, can)
	}
	var held []inhibitor
	if err := manager.CallWithContext(ctx, logindManager+".ListInhibitors", 0).Store(&held); err != nil {
		return fmt.Errorf("ask who blocks it: %w", err)
	}
	if err := blocked(held); err != nil {
		return err
	}
	// Not interactive: nobody is there to be asked.
	return manager.CallWithContext(ctx, logindManager+".Reboot", 0, false).Err
}

// inhibitor is a row of logind's ListInhibitors, whose order its fields have.
type inhibitor struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

// blocked says who blocks a shutdown. Root may overrule them, and logind lets it.
func blocked(held []inhibitor) error {
	for _, i := range held {
		if strings.HasPrefix(i.Mode, "block") && slices.Contains(strings.Split(i.What, ":"), "shutdown") {
			return fmt.Errorf("%s (process %d) blocks it: %s", i.Who, i.PID, i.Why)
		}
	}
	return nil
}
