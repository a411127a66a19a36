package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// enter gives the host another rollout to a closure, as its next one.
func enter(t *testing.T, r *reducer, target fleet.Closure, attempt int) lifecycle.Host {
	t.Helper()
	n := len(r.view().rollouts) + 1
	policy := fleet.DefaultPolicy()
	manifest := &fleet.Manifest{Channel: "stable", ChannelRef: fmt.Sprintf("%02d", n), Attempt: attempt, Policy: &policy, HostSet: []fleet.Target{{Hostname: "web-01", TargetClosure: target}}}
	h, err := lifecycle.New("web-01", fmt.Sprintf("stable@%02d", n), manifest, "plan", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// failsIn lets a rollout fail in its switch and go back.
func failsIn(t *testing.T, r *reducer, h lifecycle.Host) {
	t.Helper()
	next := *r.view()
	next.rollouts = append(next.rollouts, &entry{Rollout: journal.Rollout{Host: h}, since: time.Now()})
	r.publish(&next)
	for _, body := range []lifecycle.Body{
		lifecycle.DispatchAck{CurrentClosureAtDispatch: was},
		lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: was, BootID: "b", BootDefaultWas: was},
		lifecycle.ActivationFailed{ExitCode: 2, StderrTail: "one\ntwo\n", Phase: lifecycle.PhaseSwitch, Mutated: true},
		lifecycle.RollbackComplete{RevertedToClosure: was},
	} {
		if err := reduce(t, r, func(t *turn) error { return t.event(h.Rollout, body) })[0]; err != nil {
			t.Fatal(err)
		}
	}
}

// refused is why a target is not accepted now; nil when it is.
func refused(t *testing.T, r *reducer, h lifecycle.Host) *rejection {
	t.Helper()
	err := reduce(t, r, func(t *turn) error { return t.quarantined(h) })[0]
	var why *rejection
	if err != nil && (!errors.As(err, &why) || why.Reason != wire.RejectQuarantined) {
		t.Fatal(err)
	}
	return why
}

// TestQuarantine: a closure that failed is left alone for a day, for two after the
// second time, and so on; a further attempt and another closure are free of it.
func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := switching(t)
		reduce(t, r, happens(lifecycle.GaveUp{Cause: lifecycle.CauseDrift, PolicyApplied: fleet.HealthRollbackAndHalt}))
		for n, days := range []int{1, 2, 4, 8, 16, 32, 64, 64} {
			failsIn(t, r, enter(t, r, wants, 1))
			held := r.view().inQuarantine(time.Now())
			if len(held) != 1 || held[0].Closure != wants || held[0].Count != n+1 || held[0].Why != "switch in phase switch, exit code 2: two" {
				t.Fatalf("after %d failures: %+v", n+1, held)
			}
			delay := time.Duration(days) * 24 * time.Hour
			if left := time.Until(held[0].Until); left != delay {
				t.Errorf("after %d failures it is left alone for %s, want %s", n+1, left, delay)
			}
			time.Sleep(delay - time.Minute)
			if why := refused(t, r, enter(t, r, wants, 1)); why == nil || !strings.Contains(why.Detail, "two") {
				t.Errorf("a minute before the end of %s: %v", delay, why)
			}
			if why := refused(t, r, enter(t, r, wants, 2)); why != nil {
				t.Errorf("a further attempt is refused: %v", why)
			}
			if why := refused(t, r, enter(t, r, "00000000000000000000000000000003-nixos-system-other", 1)); why != nil {
				t.Errorf("another closure is refused: %v", why)
			}
			time.Sleep(time.Minute)
			if why := refused(t, r, enter(t, r, wants, 1)); why != nil {
				t.Errorf("after %s: %v", delay, why)
			}
		}
	})
}

// TestAQuarantineSurvivesARestart, and so does the count of one that is over.
func TestAQuarantineSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := switching(t)
		reduce(t, r, happens(lifecycle.GaveUp{Cause: lifecycle.CauseDrift, PolicyApplied: fleet.HealthRollbackAndHalt}))
		restart := func() {
			s, err := load(r.journal, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			s.facts = r.view().facts
			r = newReducer(r.cfg, r.key, r.journal, s)
		}
		failsIn(t, r, enter(t, r, wants, 1))
		restart()
		if refused(t, r, enter(t, r, wants, 1)) == nil {
			t.Error("the next agent tries it at once")
		}
		time.Sleep(25 * time.Hour)
		restart()
		failsIn(t, r, enter(t, r, wants, 1))
		if held := r.view().inQuarantine(time.Now()); len(held) != 1 || held[0].Count != 2 {
			t.Errorf("%+v", held)
		}
	})
}

// TestUnquarantine lifts by closure, or all, and nothing that is over.
func TestUnquarantine(t *testing.T) {
	const second = fleet.Closure("00000000000000000000000000000003-nixos-system-second")
	synctest.Test(t, func(t *testing.T) {
		r := switching(t)
		reduce(t, r, happens(lifecycle.GaveUp{Cause: lifecycle.CauseDrift, PolicyApplied: fleet.HealthRollbackAndHalt}))
		lift := func(c fleet.Closure) int {
			n := 0
			reduce(t, r, func(t *turn) error { n = len(t.unquarantineNow(c)); return nil })
			return n
		}
		failsIn(t, r, enter(t, r, wants, 1))
		failsIn(t, r, enter(t, r, second, 1))
		if n := lift(was); n != 0 {
			t.Errorf("%d lifted of what never failed", n)
		}
		if n := lift(wants); n != 1 || refused(t, r, enter(t, r, wants, 1)) != nil {
			t.Errorf("%d lifted, and it is refused: %v", n, refused(t, r, enter(t, r, wants, 1)))
		}
		if refused(t, r, enter(t, r, second, 1)) == nil {
			t.Error("the other one was lifted as well")
		}
		if n := lift(""); n != 1 || refused(t, r, enter(t, r, second, 1)) != nil {
			t.Errorf("%d lifted of all", n)
		}
		failsIn(t, r, enter(t, r, second, 1))
		if held := r.view().inQuarantine(time.Now()); len(held) != 1 || held[0].Count != 1 {
			t.Errorf("after it was lifted, a failure is the first again: %+v", held)
		}
		time.Sleep(25 * time.Hour)
		if n := lift(""); n != 0 {
			t.Errorf("%d lifted that were over", n)
		}
	})
}

// TestAClosureThatConvergedIsNotQuarantined: a further attempt has shown that it
// is good, so that it may be released again like any other.
func TestAClosureThatConvergedIsNotQuarantined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := switching(t)
		reduce(t, r, happens(lifecycle.GaveUp{Cause: lifecycle.CauseDrift, PolicyApplied: fleet.HealthRollbackAndHalt}))
		failsIn(t, r, enter(t, r, wants, 1))
		time.Sleep(time.Minute)
		h := enter(t, r, wants, 2)
		next := *r.view()
		next.rollouts = append(next.rollouts, &entry{Rollout: journal.Rollout{Host: h}, since: time.Now()})
		r.publish(&next)
		for _, body := range []lifecycle.Body{
			lifecycle.DispatchAck{CurrentClosureAtDispatch: was},
			lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: was, BootID: "b", BootDefaultWas: was},
			lifecycle.ActivationCompleted{ObservedCurrentClosure: wants, BootID: "b"},
			lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{}},
			lifecycle.Confirmed{BootID: "b", Via: "control-plane"},
			lifecycle.Persisted{Generation: 2, BootDefaultVerified: true},
			lifecycle.HasConverged{CurrentClosure: wants},
		} {
			if err := reduce(t, r, func(t *turn) error { return t.event(h.Rollout, body) })[0]; err != nil {
				t.Fatal(err)
			}
		}
		if why := refused(t, r, enter(t, r, wants, 1)); why != nil {
			t.Errorf("it runs here and has converged, and is refused: %v", why)
		}
	})
}
