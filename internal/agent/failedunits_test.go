package agent

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/lifecycle"
)

// ofUnits is a machine whose units can be looked at, and nothing else.
type ofUnits struct {
	host.Machine
	failed []string
	err    error
}

func (m ofUnits) Units(context.Context) (host.Units, error) {
	return host.Units{Failed: m.failed}, m.err
}

// TestFailedUnitsProbe: what had failed before the switch does not count; every
// reason, to the letter.
func TestFailedUnitsProbe(t *testing.T) {
	r := switching(t)
	mark, err := json.Marshal(activation.Mark{BootID: "b", Before: host.Units{Failed: []string{"old.service"}}})
	if err != nil {
		t.Fatal(err)
	}
	reduce(t, r, func(t *turn) error {
		t.update(id, func(e *entry) { e.Steps = map[string]json.RawMessage{string(activation.StepSwitch): mark} })
		return nil
	})
	for _, c := range []struct {
		name      string
		machine   ofUnits
		tolerated int
		want      string
	}{
		{"none", ofUnits{}, 0, ""},
		{"one that had failed before", ofUnits{failed: []string{"old.service"}}, 0, ""},
		{"as many as are tolerated", ofUnits{failed: []string{"a.service", "old.service"}}, 1, ""},
		{"more than are tolerated", ofUnits{failed: []string{"a.service", "b.mount", "old.service"}}, 1, "newly failed, of 1 tolerated: a.service b.mount"},
		{"systemd does not answer", ofUnits{err: errors.New("connection refused")}, 0, "the units cannot be looked at: connection refused"},
	} {
		a := &Agent{reducer: r, machine: c.machine}
		want := lifecycle.Pass
		if c.want != "" {
			want = lifecycle.Fail
		}
		if got := a.failedUnitsProbe(t.Context(), id, c.tolerated).Check(t.Context()); got.Status != want || got.Reason != c.want {
			t.Errorf("%s: %s %q, want %s %q", c.name, got.Status, got.Reason, want, c.want)
		}
	}

	// Of a rollout that switched nothing, what has failed already is what was before.
	r = switching(t)
	a := &Agent{reducer: r, machine: ofUnits{failed: []string{"old.service"}}}
	p := a.failedUnitsProbe(t.Context(), id, 0)
	a.machine = ofUnits{failed: []string{"new.service", "old.service"}}
	if got := p.Check(t.Context()); got.Reason != "newly failed, of 0 tolerated: new.service" {
		t.Errorf("without a switch: %+v", got)
	}
}
