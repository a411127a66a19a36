package lifecycle_test

import (
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
)

func TestQuarantines(t *testing.T) {
	failed := func(p lifecycle.Phase) lifecycle.Body {
		return lifecycle.ActivationFailed{ExitCode: 2, Phase: p, Mutated: true}
	}
	unsigned := lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhaseFetch, BadSignature: true}
	probes := walk(t, soaking(t), gaveUp(lifecycle.CauseProbes))
	cases := []struct {
		name string
		host lifecycle.Host
		want bool
	}{
		{"probes", probes, true},
		{"probes, reverted", walk(t, probes, revert), true},
		{"probes, halted", walk(t, soaking(t, halting), gaveUp(lifecycle.CauseProbes)), true},
		{"probes, then superseded", walk(t, probes, lifecycle.RollbackFailed{}, supersede), true},
		{"switch", walk(t, switching(t), failed(lifecycle.PhaseSwitch)), true},
		{"observe", walk(t, switching(t), failed(lifecycle.PhaseObserve)), true},
		{"boot", walk(t, staged(t), failed(lifecycle.PhaseBoot)), true},
		{"bad signature", walk(t, activating(t), unsigned), true},
		{"fetch", walk(t, activating(t), failed(lifecycle.PhaseFetch)), false},
		{"preflight", walk(t, switching(t), failed(lifecycle.PhasePreflight)), false},
		{"confirm", walk(t, soaking(t), gaveUp(lifecycle.CauseConfirm)), false},
		{"persist", walk(t, soaking(t), gaveUp(lifecycle.CausePersist)), false},
		{"signal", walk(t, soaking(t), gaveUp(lifecycle.CauseSignal)), false},
		{"drift", walk(t, soaking(t), gaveUp(lifecycle.CauseDrift)), false},
		{"deadline", walk(t, switching(t), gaveUp(lifecycle.CauseDeadline)), false},
		{"converged", done(t), false},
		{"unchanged", walk(t, unchanged(t), gaveUp(lifecycle.CauseProbes)), false},
		{"bad signature of what runs", walk(t, pending(t, older), lifecycle.DispatchAck{CurrentClosureAtDispatch: older}, unsigned), false},
	}
	for _, c := range cases {
		if got := lifecycle.Quarantines(c.host); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestQuarantineBlocks(t *testing.T) {
	q := lifecycle.QuarantineOf(walk(t, soaking(t), gaveUp(lifecycle.CauseProbes)))
	host := func(change func(*lifecycle.Host)) lifecycle.Host {
		h := pending(t, newer)
		change(&h)
		return h
	}
	later := signedAt.Add(time.Minute)
	for _, c := range []struct {
		name string
		host lifecycle.Host
		want bool
	}{
		{"another host of the rollout", host(func(h *lifecycle.Host) {}), true},
		{"a newer ref", host(func(h *lifecycle.Host) { h.FirstSignedAt = later }), true},
		{"a further attempt, signed later", host(func(h *lifecycle.Host) { h.Attempt, h.FirstSignedAt = 2, later }), false},
		{"a further attempt, signed before", host(func(h *lifecycle.Host) { h.Attempt = 2 }), true},
		{"another closure", host(func(h *lifecycle.Host) { h.Target = other }), false},
		{"another channel", host(func(h *lifecycle.Host) { h.Channel = "edge" }), false},
	} {
		if got := q.Blocks(c.host); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
