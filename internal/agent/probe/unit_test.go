package probe

import (
	"context"
	"errors"
	"testing"

	"nixfleet/internal/lifecycle"
)

// systemdWith answers for one unit, and knows no other.
func systemdWith(name string, u UnitState) Machine {
	return Machine{Unit: func(_ context.Context, asked string) (UnitState, error) {
		if asked != name {
			return UnitState{Load: "not-found", Active: "inactive", Result: "success"}, nil
		}
		return u, nil
	}}
}

// TestUnit: every reason, to the letter.
func TestUnit(t *testing.T) {
	for _, test := range []struct {
		name  string
		state UnitState
		want  string
	}{
		{"active", UnitState{"loaded", "active", "success"}, ""},
		{"of a type without a result", UnitState{"loaded", "active", ""}, ""},
		{"reloading", UnitState{"loaded", "reloading", "success"}, ""},
		{"refreshing", UnitState{"loaded", "refreshing", "success"}, ""},
		{"not there", UnitState{"not-found", "inactive", "success"}, "nginx.service: systemd knows no such unit"},
		{"masked", UnitState{"masked", "inactive", "success"}, "nginx.service is not loaded: masked"},
		{"a file that systemd cannot read", UnitState{"bad-setting", "inactive", "success"}, "nginx.service is not loaded: bad-setting"},
		{"ended well", UnitState{"loaded", "inactive", "success"}, "nginx.service is inactive"},
		{"starting", UnitState{"loaded", "activating", "success"}, "nginx.service is activating"},
		{"starting again", UnitState{"loaded", "activating", "exit-code"}, "nginx.service is activating, its result is exit-code"},
		{"failed", UnitState{"loaded", "failed", "exit-code"}, "nginx.service is failed, its result is exit-code"},
		{"killed for its memory", UnitState{"loaded", "failed", "oom-kill"}, "nginx.service is failed, its result is oom-kill"},
		{"active with a bad result", UnitState{"loaded", "active", "timeout"}, "nginx.service is active, but its result is timeout"},
		{"a state of later", UnitState{"loaded", "resting", ""}, "nginx.service is resting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			expectExactly(t, checkOf(t, `{"kind":"unit","unit":"nginx.service"}`, systemdWith("nginx.service", test.state))(t.Context()), test.want)
		})
	}
}

func TestUnitNames(t *testing.T) {
	up := UnitState{"loaded", "active", "success"}
	for declared, asked := range map[string]string{
		"nginx": "nginx.service", "getty@tty1": "getty@tty1.service", "dbus-org.freedesktop": "dbus-org.freedesktop.service",
		"backup.timer": "backup.timer", "multi-user.target": "multi-user.target", `dev-disk-by\\x2dlabel-data.device`: `dev-disk-by\x2dlabel-data.device`,
	} {
		expectExactly(t, checkOf(t, `{"kind":"unit","unit":"`+declared+`"}`, systemdWith(asked, up))(t.Context()), "")
	}
}

func TestUnitWithoutSystemd(t *testing.T) {
	check := func(m Machine) Verdict {
		return checkOf(t, `{"kind":"unit","unit":"nginx"}`, m)(t.Context())
	}
	expectExactly(t, check(Machine{}), "nginx.service cannot be looked at: there is no systemd on this host")
	expectExactly(t, check(Machine{Unit: func(context.Context, string) (UnitState, error) { return UnitState{}, errors.New("connection refused") }}),
		"nginx.service cannot be looked at: connection refused")
}

// expectExactly is expect for a whole reason.
func expectExactly(t *testing.T, got Verdict, want string) {
	t.Helper()
	status := lifecycle.Fail
	if want == "" {
		status = lifecycle.Pass
	}
	if got.Status != status || got.Reason != want {
		t.Errorf("%s %q, want %s %q", got.Status, got.Reason, status, want)
	}
}
