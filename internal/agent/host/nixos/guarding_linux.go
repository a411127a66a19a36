package nixos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
)

// agentUnit is the agent's service.
const agentUnit = "nixfleet-agent.service"

const (
	// agentDrain is how long the agent has to stop: its unit's TimeoutStopSec and a
	// little.
	agentDrain = 30 * time.Second
	// agentDeath is how long a killed agent may take to be gone. Only a process in
	// the kernel's hands takes longer, and that one never runs our code again.
	agentDeath = 10 * time.Second
)

// StartGuard starts a transient unit that is kept apart from the system's own
// targets, so that it survives an isolate, and that is stopped before the state
// directory is unmounted.
func (m *Machine) StartGuard(ctx context.Context, g host.GuardUnit) error {
	err := talk(ctx, func(ctx context.Context, conn *systemd.Conn) error {
		_, err := conn.StartTransientUnitContext(ctx, unitName(host.SlotGuard), "replace", guardProperties(g), nil)
		return err
	})
	if isDBusError(err, errUnitExists) {
		err = host.ErrSlotTaken
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", host.SlotGuard, err)
	}
	return nil
}

// guardProperties: only ones that systemd 252 knows, as in unitProperties.
func guardProperties(g host.GuardUnit) []systemd.Property {
	value := func(name string, v any) systemd.Property {
		return systemd.Property{Name: name, Value: dbus.MakeVariant(v)}
	}
	return []systemd.Property{
		systemd.PropDescription("nixfleet: goes back when the agent cannot"),
		systemd.PropType("simple"),
		systemd.PropExecStart(append([]string{g.Program}, g.Args...), false),
		value("CollectMode", "inactive-or-failed"), // nobody reads its result, and its name must be free
		value("OOMScoreAdjust", int32(-1000)),
		value("Restart", "on-failure"),
		value("RestartUSec", uint64(time.Second.Microseconds())),
		value("StartLimitIntervalUSec", uint64(0)), // however often it dies
		value("IgnoreOnIsolate", true),
		value("DefaultDependencies", false),
		systemd.PropConflicts("shutdown.target"),
		systemd.PropBefore("shutdown.target"),
		value("RequiresMountsFor", []string{g.StateDir}),
		value("StandardInput", "null"),
		value("StandardOutput", "journal"),
		value("StandardError", "journal"),
		value("Environment", append([]string{"PATH=/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin"}, crashpoint.Environ()...)),
	}
}

// BeAgent has nothing to do: systemd runs one agent.
func (m *Machine) BeAgent(ctx context.Context) (release func(), err error) {
	return func() {}, nil
}

// StopAgent stops the service first, because one that is only killed is started
// again.
func (m *Machine) StopAgent(ctx context.Context) error {
	err := talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		_, err := c.StopUnitContext(ctx, agentUnit, "replace", nil)
		return err
	})
	if isDBusError(err, errNoSuchUnit) {
		return nil
	}
	if err == nil {
		err = agentGone(ctx, agentDrain)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	killed := talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		return c.KillUnitWithTarget(ctx, agentUnit, systemd.All, int32(unix.SIGKILL))
	})
	if gone := agentGone(ctx, agentDeath); gone != nil {
		return fmt.Errorf("stop %s: %w", agentUnit, errors.Join(err, killed, gone))
	}
	return nil
}

// agentGone waits until the agent's service is stopped.
func agentGone(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		state, err := agentState(ctx)
		if err == nil && slices.Contains([]string{"", "inactive", "failed"}, state) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s is %s after %s", agentUnit, state, limit), err)
		case <-time.After(host.Poll):
		}
	}
}

// agentState is the service's active state, "" when systemd does not know it.
func agentState(ctx context.Context) (state string, err error) {
	err = talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		p, err := c.GetUnitPropertyContext(ctx, agentUnit, "ActiveState")
		if err != nil {
			return err
		}
		state, _ = p.Value.Value().(string)
		return nil
	})
	if isDBusError(err, errNoSuchUnit) {
		return "", nil
	}
	return state, err
}

// StartAgent queues the service's start.
func (m *Machine) StartAgent(ctx context.Context) error {
	err := talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		_, err := c.StartUnitContext(ctx, agentUnit, "replace", nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", agentUnit, err)
	}
	return nil
}

// SystemState asks systemd.
func (m *Machine) SystemState(ctx context.Context) (host.SystemState, error) {
	state := host.SystemUp
	err := talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		p, err := c.SystemStateContext(ctx)
		if err != nil {
			return err
		}
		switch word, _ := p.Value.Value().(string); strings.TrimSpace(word) {
		case "maintenance":
			state = host.SystemMaintenance
		case "stopping":
			state = host.SystemStopping
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("state of the system: %w", err)
	}
	return state, nil
}

// Clock is the kernel's monotonic clock, which stands still in suspend.
func (m *Machine) Clock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(now.Nano())
}

// BootDir is below /run, which is gone with the boot.
func (m *Machine) BootDir() string { return m.root + "/run/nixfleet-guard" }
