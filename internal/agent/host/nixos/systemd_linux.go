package nixos

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
)

const (
	callTimeout = 20 * time.Second // for one conversation with systemd
	idTimeout   = 10 * time.Second // for a started unit to get its id
	stopTimeout = 30 * time.Second // after SIGTERM, before SIGKILL
)

// Names of systemd's errors.
const (
	errUnitExists = "org.freedesktop.systemd1.UnitExists"
	errNoSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"
)

// talk has one conversation with systemd, over a connection of its own to the
// private socket, which works without a message bus. A connection that is kept
// would die without a sign when systemd is re-executed, as a switch may do; a
// new one costs a few milliseconds.
func talk(ctx context.Context, about func(ctx context.Context, c *systemd.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := systemd.NewSystemdConnectionContext(ctx) // lives as long as ctx
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer c.Close()
	return about(ctx, c)
}

func isDBusError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

func unitName(s host.Slot) string { return string(s) + ".service" }

// Start starts a transient unit, executed directly, and waits for its
// InvocationID: before it has one it reads like a success.
func (m *Machine) Start(ctx context.Context, s host.Slot, c host.Command) (string, error) {
	properties := unitProperties(s, c, newRun())
	err := talk(ctx, func(ctx context.Context, conn *systemd.Conn) error {
		_, err := conn.StartTransientUnitContext(ctx, unitName(s), "replace", properties, nil)
		return err
	})
	if isDBusError(err, errUnitExists) {
		return "", fmt.Errorf("start %s: %w", s, host.ErrSlotTaken)
	}
	if err != nil {
		return "", fmt.Errorf("start %s: %w", s, err)
	}
	ctx, cancel := context.WithTimeout(ctx, idTimeout)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, host.Poll) {
		u, err := readUnit(ctx, s)
		if err == nil && u.id != "" {
			return u.id, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("start %s: it has no id: %w", s, errors.Join(context.Cause(ctx), err))
		case <-time.After(pause):
		}
	}
}

// What a unit's environment says about its run, for the agent that reads it.
const (
	envRun     = "NIXFLEET_RUN"
	envRollout = "NIXFLEET_ROLLOUT"
	envClosure = "NIXFLEET_CLOSURE"
	envAction  = "NIXFLEET_ACTION"
)

func newRun() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// unitProperties is the unit of a run. Only properties that systemd 252 knows:
// one that it does not know refuses the whole unit.
func unitProperties(s host.Slot, c host.Command, run string) []systemd.Property {
	env := []string{envRun + "=" + run, envRollout + "=" + c.Rollout, envClosure + "=" + string(c.Closure), envAction + "=" + string(c.Action)}
	if c.NoCheck {
		env = append(env, "NIXOS_NO_CHECK=1")
	}
	timeout := uint64(c.Timeout.Microseconds())
	if timeout == 0 {
		timeout = ^uint64(0) // systemd's infinity
	}
	value := func(name string, v any) systemd.Property {
		return systemd.Property{Name: name, Value: dbus.MakeVariant(v)}
	}
	properties := []systemd.Property{
		systemd.PropDescription(fmt.Sprintf("nixfleet: %s of %s for rollout %s", c.Action, c.Closure, c.Rollout)),
		systemd.PropType("oneshot"),
		// false, although it is named uncleanIsFailure: true is the prefix "-",
		// which calls every exit code a success.
		systemd.PropExecStart([]string{c.Closure.Path() + "/bin/switch-to-configuration", string(c.Action)}, false),
		systemd.PropRemainAfterExit(true), // the result of a success has to stay readable, too
		value("TimeoutStartUSec", timeout),
		value("TimeoutStopUSec", uint64(stopTimeout.Microseconds())),
		value("KillMode", "mixed"),
		value("Environment", env),
		value("StandardInput", "null"),
		value("StandardOutput", "journal"), // never a pipe of ours: it would die with us
		value("StandardError", "journal"),
		value("LogExtraFields", [][]byte{[]byte(envRun + "=" + run)}),
	}
	if c.Alone {
		properties = append(properties,
			value("DefaultDependencies", false),
			systemd.PropConflicts("shutdown.target"),
			systemd.PropBefore("shutdown.target"))
	}
	return properties
}

// unit is what systemd says about a slot's unit.
type unit struct {
	load, active, sub string
	id                string // the InvocationID in hex
	job               bool   // one is queued
	environment       map[string]string

	result           string
	code, exitStatus int32
}

// readUnit asks systemd. A unit that it does not know has the load state
// not-found, and otherwise reads like a success.
func readUnit(ctx context.Context, s host.Slot) (u unit, err error) {
	err = talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		general, err := c.GetUnitPropertiesContext(ctx, unitName(s))
		if err != nil {
			return err
		}
		if general["LoadState"] == "not-found" {
			u = unit{load: "not-found"}
			return nil
		}
		// Asked second: what it says about an ended unit does not change any more.
		service, err := c.GetUnitTypePropertiesContext(ctx, unitName(s), "Service")
		if err != nil {
			return err
		}
		u, err = parseUnit(general, service)
		return err
	})
	if isDBusError(err, errNoSuchUnit) {
		return unit{load: "not-found"}, nil
	}
	if err != nil {
		return unit{}, fmt.Errorf("status of %s: %w", s, err)
	}
	return u, nil
}

// parseUnit reads the properties of the interfaces Unit and Service. One that is
// missing or of another type is an error: none of them may be guessed.
func parseUnit(general, service map[string]any) (unit, error) {
	u := unit{environment: make(map[string]string)}
	var problems error
	read(general, "LoadState", &u.load, &problems)
	read(general, "ActiveState", &u.active, &problems)
	read(general, "SubState", &u.sub, &problems)
	var id []byte
	read(general, "InvocationID", &id, &problems)
	var job []any
	read(general, "Job", &job, &problems)
	var env []string
	read(service, "Environment", &env, &problems)
	read(service, "Result", &u.result, &problems)
	read(service, "ExecMainCode", &u.code, &problems)
	read(service, "ExecMainStatus", &u.exitStatus, &problems)
	if problems != nil {
		return unit{}, problems
	}
	if len(id) == 16 {
		u.id = hex.EncodeToString(id)
	}
	if len(job) > 0 {
		n, _ := job[0].(uint32)
		u.job = n != 0
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		u.environment[name] = value
	}
	return u, nil
}

func read[T any](properties map[string]any, name string, into *T, problems *error) {
	v, ok := properties[name].(T)
	if !ok {
		*problems = errors.Join(*problems, fmt.Errorf("systemd's property %s is %T", name, properties[name]))
		return
	}
	*into = v
}

// How a main process ended, as siginfo has it.
const (
	codeKilled = 2
	codeDumped = 3
)

// run is what the unit's state means. Result is what counts, ExecMainStatus only
// says more: a unit that was killed by its time limit can have the status 0.
func (u unit) run() host.Run {
	r := host.Run{
		ID:      u.id,
		Rollout: u.environment[envRollout],
		Closure: fleet.Closure(u.environment[envClosure]),
		Action:  host.Action(u.environment[envAction]),
	}
	switch {
	case u.load == "not-found":
		return host.Run{}
	case u.active == "active" && u.sub == "exited", u.active == "failed":
		r.Phase, r.Result, r.ExitCode = host.RunEnded, u.result, int(u.exitStatus)
		if u.code == codeKilled || u.code == codeDumped {
			r.ExitCode += 128
		}
		return r
	case u.active == "inactive" && !u.job:
		return host.Run{} // stopped, and its result with it
	}
	r.Phase = host.RunRunning // or about to: it has no id then
	return r
}

// Status reads the unit, and when it has ended its last words.
func (m *Machine) Status(ctx context.Context, s host.Slot) (host.Run, error) {
	u, err := readUnit(ctx, s)
	if err != nil {
		return host.Run{}, err
	}
	r := u.run()
	if r.Phase == host.RunEnded {
		r.Output = m.lastWords(ctx, s, u.environment[envRun])
	}
	return r, nil
}

// Clear stops the unit, waits for that, and makes systemd forget its failure,
// so that the name is free.
func (m *Machine) Clear(ctx context.Context, s host.Slot) error {
	err := talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		_, err := c.StopUnitContext(ctx, unitName(s), "replace", nil)
		return err
	})
	if isDBusError(err, errNoSuchUnit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", s, err)
	}
	// By asking, not by the signal of the job's end: that can be lost.
	limited, cancel := context.WithTimeout(ctx, 4*stopTimeout)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, host.Poll) {
		u, err := readUnit(limited, s)
		if err == nil && (u.load == "not-found" || !u.job && (u.active == "inactive" || u.active == "failed")) {
			break
		}
		select {
		case <-limited.Done():
			return fmt.Errorf("stop %s: %w", s, errors.Join(context.Cause(limited), err))
		case <-time.After(pause):
		}
	}
	err = talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		return c.ResetFailedUnitContext(ctx, unitName(s))
	})
	if err != nil && !isDBusError(err, errNoSuchUnit) {
		return fmt.Errorf("reset %s: %w", s, err)
	}
	return nil
}
