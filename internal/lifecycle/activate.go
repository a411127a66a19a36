package lifecycle

import "fmt"

// Exit codes of a switch program that leave the target live: done, and done but
// units failed.
const (
	exitDone        = 0
	exitFailedUnits = 4
)

func (h *Host) accepted(b DispatchAck, e Event) string {
	switch {
	case h.State != Pending:
		return wrongState
	case b.TargetClosure != "" && b.TargetClosure != h.Target:
		return fmt.Sprintf("it accepts %s, the plan says %s", b.TargetClosure, h.Target)
	case b.PlanHash != "" && h.PlanHash != "" && b.PlanHash != h.PlanHash:
		return fmt.Sprintf("it accepts the plan %.12s, known is %.12s", b.PlanHash, h.PlanHash)
	}
	h.see(Observed{Current: b.CurrentClosureAtDispatch})
	h.enter(Activating, e)
	return ""
}

func (h *Host) started(b ActivationStarted) string {
	if h.State != Activating || h.Mutated {
		return wrongState
	}
	prior := b.PriorClosure
	if prior == "" {
		prior = h.Current // an older agent says only what it saw at acceptance
	}
	if prior == "" {
		return "it names no closure to go back to"
	}
	h.Mutated = true
	h.Prior, h.Ran = prior, h.Current
	h.SwitchMethod = b.SwitchMethod
	h.StartedActive = h.Active
	h.see(Observed{BootDefault: b.BootDefaultWas, BootID: b.BootID})
	h.StartBootID = h.BootID
	return ""
}

func (h *Host) completed(b ActivationCompleted, e Event) string {
	switch {
	case h.State == Activating && h.Mutated:
	case h.State == Deferred:
		if b.BootID != "" && b.BootID == h.StartBootID {
			return "it has not booted since it was staged"
		}
	default:
		return wrongState
	}
	if b.ObservedCurrentClosure != h.Target {
		return fmt.Sprintf("%s runs, the target is %s", b.ObservedCurrentClosure, h.Target)
	}
	if !h.acceptable(b) {
		return fmt.Sprintf("exit code %d with %d newly failed units of %d tolerated",
			b.ExitCode, len(b.NewFailedUnits), h.Policy.MaxFailedUnits())
	}
	h.see(Observed{Current: b.ObservedCurrentClosure, BootID: b.BootID})
	if h.SignalPending {
		h.giveUp(Failure{Cause: CauseSignal}, true, e)
		return ""
	}
	h.forgetSoak()
	h.CompletedActive = h.Active
	h.CompletedAt = e.At
	h.LiveBootID = h.BootID
	if h.confirmRequired() {
		h.ConfirmUntil = h.Active + int64(h.Policy.ConfirmWindowSecs)
	}
	h.enter(Soaking, e)
	return ""
}

func (h *Host) acceptable(b ActivationCompleted) bool {
	return b.ExitCode == exitDone ||
		b.ExitCode == exitFailedUnits && len(b.NewFailedUnits) <= h.Policy.MaxFailedUnits()
}

// deferred takes a staged target. Staging changes the boot default, so it comes
// after ActivationStarted, which fixes what to go back to.
func (h *Host) deferred(e Event) string {
	if h.State != Activating || !h.Mutated {
		return wrongState
	}
	h.BootDefault = h.Target
	if h.SignalPending {
		h.giveUp(Failure{Cause: CauseSignal}, true, e)
		return ""
	}
	h.enter(Deferred, e)
	return ""
}

func (h *Host) activationFailed(b ActivationFailed, e Event) string {
	switch h.State {
	case Activating, Deferred:
	case Soaking:
		if b.Phase != PhaseBoot || !h.bootedPrior(h.LiveBootID) {
			return "a live target fails to activate only by a boot that lands on prior"
		}
	default:
		return wrongState
	}
	failure := Failure{
		Cause:        causeOf(b.Phase),
		Phase:        b.Phase,
		ExitCode:     b.ExitCode,
		Detail:       tail(b.StderrTail),
		BadSignature: b.BadSignature,
	}
	// A phase that changed nothing owes nothing, unless the host does not stand on
	// prior: then it runs a system that a superseded rollout was still watching.
	owed := b.Mutated || b.Phase == "" || b.Phase == PhaseBoot || !h.onPrior()
	h.giveUp(failure, owed, e)
	return ""
}

func causeOf(p Phase) Cause {
	switch p {
	case PhaseFetch:
		return CauseFetch
	case PhasePreflight:
		return CausePreflight
	}
	return CauseSwitch
}
