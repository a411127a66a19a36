package core

import (
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// What an operator is told of a host that is not converged, in every situation.
func TestWhy(t *testing.T) {
	seen := time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
	row := func(s lifecycle.State, change func(h *rollout.HostRow)) *rollout.HostRow {
		h := &rollout.HostRow{}
		h.State = s
		if change != nil {
			change(h)
		}
		return h
	}
	waits := func(on ...wire.WaitingOn) wire.HostView { return wire.HostView{Channel: "stable", WaitingOn: on} }
	silent := func(v wire.HostView, at time.Time) wire.HostView {
		v.LastSeenAt, v.Conditions = at, []string{wire.ConditionUnseen}
		return v
	}
	for _, c := range []struct {
		name string
		view wire.HostView
		row  *rollout.HostRow
		want string
	}{
		{"undeclared", wire.HostView{}, nil, "It is not in the fleet document."},
		{"no target", waits(), nil, "No rollout of its channel has a target for it."},
		{"converged", waits(), row(lifecycle.Converged, nil), ""},
		{"converged, and silent", silent(waits(), seen), row(lifecycle.Converged, nil), ""},
		{"lost", silent(waits(), seen), row(lifecycle.Soaking, func(h *rollout.HostRow) { h.Lost = new(rollout.Flag) }),
			"Nothing was heard of it since 2026-11-01T08:00:00Z; as far as is known: It fell silent in the middle of a change and counts as failed until it returns or is skipped."},
		{"failed", waits(), row(lifecycle.Failed, func(h *rollout.HostRow) {
			h.Failure = &lifecycle.Failure{Cause: lifecycle.CauseProbes, Detail: "web"}
		}), "It gave up the target (probes): web"},
		{"skipped", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) {
			h.Skip = &rollout.Skip{Reason: "offline", Flag: rollout.Flag{Why: "for a day"}}
		}),
			"It is skipped (offline): for a day"},
		{"skipped for a quarantine", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) {
			h.Skip = &rollout.Skip{Reason: rollout.SkipQuarantine, Flag: rollout.Flag{Why: "given up by web-02"}}
		}),
			"Its target has failed in this channel and is in quarantine: given up by web-02"},
		{"held", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) {
			h.Deferral = &rollout.Deferral{Gate: rollout.GateBudget, Detail: "2 of 4 named hosts at once"}
		}), "As many hosts as may be are under way already: 2 of 4 named hosts at once"},
		{"refused", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) { h.Reject = &rollout.Reject{Reason: "stale", Detail: "3 h old"} }),
			"It refused the order (stale): 3 h old"},
		{"held by its administrator", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) { h.Reject = &rollout.Reject{Reason: "held", Detail: "disks"} }),
			wire.WaitingOnHold.Sentence() + " It refused the order (held): disks"},
		{"a wrong clock", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) { h.Reject = &rollout.Reject{Reason: "clock-suspect", Detail: "1970"} }),
			wire.WaitingOnClock.Sentence() + " It refused the order (clock-suspect): 1970"},
		{"in quarantine", waits(), row(lifecycle.Pending, func(h *rollout.HostRow) { h.Reject = &rollout.Reject{Reason: "quarantined", Detail: "until then"} }),
			wire.WaitingOnQuarantine.Sentence() + " It refused the order (quarantined): until then"},
		{"not enrolled", wire.HostView{Channel: "stable", Enrolment: &wire.EnrolmentFailure{Kind: "EnrollmentFailed", Reason: "expired"}}, row(lifecycle.Pending, nil),
			"It has no certificate (EnrollmentFailed): expired"},
		{"never heard of", silent(waits(), time.Time{}), row(lifecycle.Pending, nil), "It was never heard of: It has not asked for an order yet."},
		{"waits", waits(wire.WaitingOnNone, wire.WaitingOnDiskNix), row(lifecycle.Activating, nil), wire.WaitingOnDiskNix.Sentence()},
		{"waits for two things", waits(wire.WaitingOnConfirm, wire.WaitingOnProbe("web")), row(lifecycle.Soaking, nil),
			wire.WaitingOnConfirm.Sentence() + " " + wire.WaitingOnProbe("web").Sentence()},
		{"waits for nothing", waits(wire.WaitingOnNone), row(lifecycle.Soaking, nil), "It is Soaking."},
	} {
		if got := why(c.view, c.row); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := why(waits(wire.WaitingOnProbe("web")), row(lifecycle.Soaking, nil)); !strings.Contains(got, "web") {
		t.Errorf("a probe: %q", got)
	}
}
