package lifecycle_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"nixfleet/internal/lifecycle"
)

// A failed download used to roll back a healthy machine.
func TestFailedFetchRollsNothingBack(t *testing.T) {
	for _, phase := range []lifecycle.Phase{lifecycle.PhaseFetch, lifecycle.PhasePreflight} {
		h := walk(t, activating(t), lifecycle.ActivationFailed{ExitCode: 1, Phase: phase, StderrTail: "no route to host"})
		if h.RollbackOwed || !h.Terminal() || string(h.Failure.Cause) != string(phase) || h.Failure.Detail != "no route to host" {
			t.Errorf("%s: owed is %v, failure %+v", phase, h.RollbackOwed, h.Failure)
		}
	}
}

// A switch that did not begin owes nothing, but not on a system that only an
// older, superseded rollout was watching: nobody would be left to send it back.
func TestSwitchThatDidNotBeginOwesTheWayFromAnUnprovenSystem(t *testing.T) {
	refused := lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhasePreflight}
	next := walk(t, pending(t, "newest"),
		lifecycle.DispatchAck{CurrentClosureAtDispatch: newer},
		lifecycle.ActivationStarted{PriorClosure: older, BootID: "boot-1", BootDefaultWas: older})
	if h := walk(t, next, refused); !h.RollbackOwed || lifecycle.Want(h).Rollback.To != older {
		t.Errorf("on an unproven system: owed is %v", h.RollbackOwed)
	}
	if h := walk(t, switching(t), refused); h.RollbackOwed {
		t.Error("on prior a rollback is owed")
	}
}

func TestRollbackIsTheExactPrior(t *testing.T) {
	h := walk(t, soaking(t), gaveUp(lifecycle.CauseConfirm))
	wantRefused(t, h, lifecycle.RollbackComplete{RevertedToClosure: other})
	h = walk(t, h, revert)
	if h.State != lifecycle.Reverted || h.Current != older || h.BootDefault != older || h.RollbackOwed {
		t.Errorf("got %+v", h)
	}
}

func TestFailedRollbackStaysOwed(t *testing.T) {
	h := walk(t, soaking(t), gaveUp(lifecycle.CauseConfirm), lifecycle.RollbackFailed{Phase: lifecycle.PhaseProfile, ExitCode: 1, StderrTail: "disk full"})
	if h.Terminal() || h.RollbackFailed != 1 || lifecycle.Want(h).Rollback == nil || lifecycle.Want(h).Guard == nil {
		t.Errorf("after a failed rollback: %+v", h)
	}
}

// A switch that failed has touched what runs, even where the link to the current
// system does not show it: prior is switched to as a whole. A boot does the same.
func TestRollbackAfterAFailedSwitchIsWhole(t *testing.T) {
	h := walk(t, switching(t), lifecycle.ActivationFailed{ExitCode: 2, Phase: lifecycle.PhaseSwitch, Mutated: true})
	if w := lifecycle.Want(h).Rollback; w == nil || w.BootOnly {
		t.Errorf("it wants %+v", w)
	}
	inhibited := walk(t, h, lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, BootRequired: true})
	if lifecycle.Want(inhibited).Reboot == nil {
		t.Error("it wants no boot to finish it")
	}
	booted := walk(t, inhibited, observed(older, older, "boot-2"))
	if w := lifecycle.Want(booted); !w.Rollback.BootOnly || w.Reboot != nil {
		t.Errorf("after a boot it wants %s", describe(w))
	}
}

// The guard acts while the agent cannot. What it did is told as it was, before
// the agent takes it for somebody else's doing.
func TestGuardActed(t *testing.T) {
	causes := map[string]lifecycle.Cause{
		"mut": lifecycle.CauseDeadline, "sign": lifecycle.CauseDeadline, "def": lifecycle.CauseSwitch, "unst": lifecycle.CauseSwitch,
		"soak": lifecycle.CauseConfirm, "prov": lifecycle.CauseConfirm, "owed": lifecycle.CauseProbes, "again": lifecycle.CauseProbes,
	}
	for name, h := range situations(t) {
		told := lifecycle.GuardActed(h, "the agent was silent")
		if guarded := lifecycle.Want(h).Guard != nil; guarded != (len(told) > 1) {
			t.Errorf("%s: guarded is %v, it tells %v", name, guarded, told)
		}
		if len(told) <= 1 {
			continue // nothing to go back from
		}
		got := walk(t, h, told...)
		if got.State != lifecycle.Reverted || got.Failure.Cause != causes[name] {
			t.Errorf("%s: %s for %s", name, got.State, got.Failure.Cause)
		}
		now := lifecycle.Now{Active: got.Active, Observation: &lifecycle.Observed{Current: older, BootDefault: older}}
		if body, _ := lifecycle.Due(got, now); body != nil {
			t.Errorf("%s: after it due is %#v", name, body)
		}
	}
}

// A guard that could not read the journal acts on a lease that nobody wants any
// more. That it did is told all the same, and decides nothing; only after the
// rollback that it is known for there is nothing left to tell.
func TestGuardActedOnAnEndedRollout(t *testing.T) {
	for _, h := range []lifecycle.Host{
		done(t),
		walk(t, soaking(t), gaveUp(lifecycle.CauseDrift)),
		walk(t, soaking(t), supersede),
		activating(t),
	} {
		told := lifecycle.GuardActed(h, "the agent was silent")
		if len(told) != 1 || told[0] != (lifecycle.Notice{Code: lifecycle.NoticeGuardActed, Detail: "the agent was silent"}) {
			t.Errorf("%s: it tells %v", h.State, told)
			continue
		}
		if got := walk(t, h, told...); got.State != h.State {
			t.Errorf("%s became %s", h.State, got.State)
		}
	}
	if told := lifecycle.GuardActed(walk(t, soaking(t), gaveUp(lifecycle.CauseProbes), revert), ""); told != nil {
		t.Errorf("Reverted: it tells %v", told)
	}
}

// The rollout superseded another in its soak, so what ran is not prior. A boot
// into that, before prior was made the boot default, undid nothing but the time:
// the target is tried once more, and is not taken for somebody else's switch.
func TestBootIntoTheSupersededSystem(t *testing.T) {
	for _, method := range []string{lifecycle.MethodTestThenBoot, lifecycle.MethodBoot} {
		begun := walk(t, activating(t), observed(other, other, "boot-1"),
			lifecycle.ActivationStarted{SwitchMethod: method, PriorClosure: older, BootID: "boot-1", BootDefaultWas: other})
		booted := walk(t, begun, observed(other, other, "boot-2"))
		if booted.State != lifecycle.Activating || !booted.Retried || booted.StartBootID != "boot-2" {
			t.Fatalf("%s: %s, retried: %t, begun in %s", method, booted.State, booted.Retried, booted.StartBootID)
		}
		if method == lifecycle.MethodBoot {
			deferred := walk(t, booted, deferral)
			if body, _ := due(deferred, 0); body != nil {
				t.Errorf("staged after the boot, and due is %#v", body)
			}
		}
		again := walk(t, booted, observed(other, older, "boot-3"))
		if body, _ := due(again, 0); body == nil || body.Kind() != lifecycle.KindActivationFailed {
			t.Errorf("%s: after a second boot due is %#v", method, body)
		}
	}
}

// An older agent does not say what it goes back to: then it is what ran when the
// rollout was accepted. Without that there is no way back, and no start.
func TestPriorOfAnOlderAgent(t *testing.T) {
	if h := walk(t, activating(t), lifecycle.ActivationStarted{}); h.Prior != older {
		t.Errorf("prior is %q", h.Prior)
	}
	blind := walk(t, pending(t, newer), lifecycle.DispatchAck{})
	wantRefused(t, blind, lifecycle.ActivationStarted{})
}

// A signal never interrupts a switch; it is answered when the switch ends.
func TestSignalWhileSwitching(t *testing.T) {
	h := walk(t, switching(t), signal)
	if w := lifecycle.Want(h); w.Switch == nil || !h.SignalPending {
		t.Fatalf("the switch was interrupted: %s", describe(w))
	}
	ends := map[string]lifecycle.Body{
		"completed": complete,
		"deferred":  deferral,
		"power cut": observed(older, older, "boot-2"),
	}
	for name, end := range ends {
		h := walk(t, h, end)
		if h.State != lifecycle.Failed || !h.RollbackOwed || h.Failure.Cause != lifecycle.CauseSignal || h.SignalPending {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if h := walk(t, h, lifecycle.ActivationFailed{Phase: lifecycle.PhaseSwitch, Mutated: true}); h.Failure.Cause != lifecycle.CauseSwitch {
		t.Errorf("a failed switch failed for %s", h.Failure.Cause)
	}
}

func TestAnswerSignal(t *testing.T) {
	hosts := situations(t)
	hosts["halt"] = soaking(t, halting)
	obeyed := map[string]bool{"acti": true, "mut": true, "sign": true, "def": true, "unst": true, "soak": true, "prov": true}
	for name, h := range hosts {
		got := lifecycle.AnswerSignal(h, "o1", "operator")
		if got.Obeyed != obeyed[name] || got.Why == "" || got.OrderID != "o1" || got.Reason != "operator" {
			t.Errorf("%s: %+v", name, got)
		}
		walk(t, h, got)
		if !got.Obeyed {
			got.Obeyed = true
			if why := wantRefused(t, h, got).Why; why != got.Why {
				t.Errorf("%s: obeying is refused because %q, the answer is %q", name, why, got.Why)
			}
		}
	}
}

// Cutting an error text inside a character used to crash the worker for good.
func TestFailureKeepsABoundedValidTail(t *testing.T) {
	text := strings.Repeat("é", 400) + "x the cause"
	h := walk(t, activating(t), lifecycle.ActivationFailed{Phase: lifecycle.PhaseFetch, StderrTail: text})
	got := h.Failure.Detail
	if len(got) > 512 || len(got) < 500 || !utf8.ValidString(got) || !strings.HasSuffix(got, "the cause") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
