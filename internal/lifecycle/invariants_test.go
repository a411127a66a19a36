package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// Each invariant of Converged, broken alone: Step refuses the event and says
// which one it was, and Due does not yield it.
func TestConvergedNeedsEveryInvariant(t *testing.T) {
	failing := func(h lifecycle.Host) lifecycle.Host { return walk(t, h, fail) }
	cases := []struct {
		name string
		host lifecycle.Host
		secs int64 // since the host's last event
		why  string
	}{
		{"current is the target", walk(t, proven(t), observed(other, newer, "boot-1")), 300, "other runs"},
		{"the soak is over", proven(t), 299, "1 of 300 s of the soak are left"},
		{"topology declared", walk(t, soaking(t), confirm, persist), 300, "no probes were declared"},
		{"a result of every enforced probe", walk(t, soaking(t), declare, confirm, persist), 300, `the probe "web" has not passed`},
		{"the latest result is a pass", failing(proven(t)), 300, `the probe "web" has not passed`},
		{"of a mode that is not known here", walk(t, soaking(t), declareOf("strict"), confirm, persist), 300, `the probe "web" has not passed`},
		{"confirmed", walk(t, soaking(t), declare, pass, persist), 300, "no uplink was reached"},
		{"confirmed in this boot", walk(t, proven(t), observed(newer, newer, "boot-2")), 300, "no uplink was reached"},
		{"persisted", walk(t, soaking(t), declare, pass, confirm), 300, "not the boot default"},
		{"unchanged: the boot default", walk(t, unchanged(t), declare, pass, observed(older, other, "boot-1")), 0, "not the boot default"},
		{"unchanged: declared", unchanged(t), 0, "no probes were declared"},
		{"unchanged: passed", walk(t, unchanged(t), declare), 0, `the probe "web" has not passed`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			event := lifecycle.HasConverged{CurrentClosure: c.host.Target}
			if got := wantRefused(t, c.host, after{c.secs, event}).Why; !strings.Contains(got, c.why) {
				t.Errorf("refused because %q, want %q", got, c.why)
			}
			if body, _ := due(c.host, c.secs); body != nil && body.Kind() == lifecycle.KindConverged {
				t.Error("Due yields Converged")
			}
		})
	}
	if h := done(t); h.State != lifecycle.Converged {
		t.Errorf("with all of them the host is %s", h.State)
	}
}

func TestConvergedIsDueWhenItsInvariantsAreTrue(t *testing.T) {
	cases := []struct {
		name string
		host lifecycle.Host
		secs int64
	}{
		{"enforced probe", proven(t), 300},
		{"no probes", walk(t, soaking(t), lifecycle.ProbeTopologyDeclared{}, confirm, persist), 300},
		{"failing observed probe", walk(t, soaking(t), declareOf(lifecycle.Observe), fail, confirm, persist), 300},
		{"disabled probe without a result", walk(t, soaking(t), declareOf(lifecycle.Disabled), confirm, persist), 300},
		{"confirmation off", walk(t, soaking(t, unconfirmed), declare, pass, persist), 300},
		{"no soak", proven(t, noSoak), 0},
		{"unchanged", walk(t, unchanged(t), declare, pass), 0},
		{"unchanged, boot default made right", walk(t, unchanged(t), observed(older, other, "boot-1"), declare, pass, persist), 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			body, _ := due(c.host, c.secs)
			got, ok := body.(lifecycle.HasConverged)
			if !ok || got.CurrentClosure != c.host.Target {
				t.Fatalf("due is %#v", body)
			}
			if h := walk(t, c.host, after{c.secs, body}); h.State != lifecycle.Converged || !h.Terminal() {
				t.Errorf("the host is %s", h.State)
			}
		})
	}
}

// What is reported happened: without a look at the machine nothing converges.
func TestConvergedIsDecidedByAFreshObservation(t *testing.T) {
	h := proven(t)
	body, wait := lifecycle.Due(h, lifecycle.Now{Active: h.Active + 300})
	if body != nil || wait != time.Second {
		t.Errorf("without an observation due is %v, wait %v", body, wait)
	}
	body, _ = lifecycle.Due(h, lifecycle.Now{Active: h.Active + 300, Observation: &lifecycle.Observed{Current: other}})
	if body != (lifecycle.Observed{Current: other}) {
		t.Errorf("with another system due is %#v, want what was observed", body)
	}
}

// A host that switched an hour after its rollout opened soaks from then on.
func TestSoakCountsFromTheActivation(t *testing.T) {
	h := walk(t, activating(t), after{3600, start}, after{600, complete}, declare, pass, confirm, persist)
	for secs, want := range map[int64]bool{0: false, 299: false, 300: true} {
		if body, _ := due(h, secs); (body != nil) != want {
			t.Errorf("%d s after the activation: due is %v", secs, body)
		}
	}
	if _, wait := due(h, 100); wait != 200*time.Second {
		t.Errorf("with 200 s left Due asks to be asked after %v", wait)
	}
}

// Results from before an activation show nothing about what it made live.
func TestProbeResultsFromBeforeTheActivationDoNotCount(t *testing.T) {
	h := walk(t, soaking(t), declare, pass, confirm)
	h = walk(t, h, observed(older, older, "boot-2"), lifecycle.ActivationCompleted{ObservedCurrentClosure: newer, BootID: "boot-2"})
	h = walk(t, h, lifecycle.Confirmed{BootID: "boot-2"}, persist)
	wantRefused(t, h, after{300, converge})
	h = walk(t, h, declare)
	if got := wantRefused(t, h, after{300, converge}); !strings.Contains(got.Why, "has not passed") {
		t.Errorf("declared again, it is refused because %s", got.Why)
	}
}

// An agent that starts again declares the same probes; what they have shown since
// the activation still counts. A probe that became another kind starts afresh.
func TestOnlyAnActivationForgetsProbeResults(t *testing.T) {
	h := walk(t, proven(t), after{300, declare})
	if body, _ := due(h, 0); body == nil {
		t.Error("declared again, the pass is forgotten")
	}
	other := lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{{ProbeName: "web", Kind: "tcp", Mode: lifecycle.Enforce}}}
	if body, _ := due(walk(t, h, other), 0); body != nil {
		t.Errorf("a probe of another kind: due is %v", body)
	}
	gone := lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{{ProbeName: "db", Kind: "tcp", Mode: lifecycle.Observe}}}
	h = walk(t, h, fail, gone)
	if body, _ := due(h, 0); body == nil {
		t.Error("a failing probe that is not declared any more still counts")
	}
}

func TestSwitchThatLeftFailedUnits(t *testing.T) {
	exit4 := func(units ...string) lifecycle.Body {
		return lifecycle.ActivationCompleted{ObservedCurrentClosure: newer, ExitCode: 4, NewFailedUnits: units, BootID: "boot-1"}
	}
	if h := walk(t, switching(t, toleratesOneUnit), exit4("a.service")); h.State != lifecycle.Soaking {
		t.Errorf("one unit of one: %s", h.State)
	}
	got := wantRefused(t, switching(t, toleratesOneUnit), exit4("a.service", "b.service"))
	if !strings.Contains(got.Why, "2 newly failed units of 1") {
		t.Errorf("two units of one: %s", got.Why)
	}
}

func TestPolicyThatHaltsLeavesTheTargetRunning(t *testing.T) {
	for _, c := range []struct {
		cause lifecycle.Cause
		owed  bool
	}{
		{lifecycle.CauseProbes, false}, {lifecycle.CauseConfirm, true}, {lifecycle.CausePersist, true},
		{lifecycle.CauseSignal, true}, {lifecycle.CauseDeadline, true}, {lifecycle.CauseDrift, false},
	} {
		h := walk(t, soaking(t, halting), gaveUp(c.cause))
		if h.RollbackOwed != c.owed || h.Failure.Cause != c.cause {
			t.Errorf("%s: rollback owed is %v, cause %s", c.cause, h.RollbackOwed, h.Failure.Cause)
		}
	}
	h := walk(t, soaking(t, halting), declare, after{10, fail})
	body, _ := due(h, 60)
	if got, ok := body.(lifecycle.GaveUp); !ok || got.PolicyApplied != fleet.HealthHalt {
		t.Errorf("due is %#v", body)
	}
}
