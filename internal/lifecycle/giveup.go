package lifecycle

import (
	"fmt"
	"strings"

	"nixfleet/internal/fleet"
)

// giveUp ends the way to the target. A rollback is owed only where there is
// something to go back from.
func (h *Host) giveUp(f Failure, owed bool, e Event) {
	f.At = e.At
	h.Failure = &f
	h.RollbackOwed = owed && h.left()
	h.SignalPending = false
	h.RebootActive = nil // what was asked for was the way on, not the way back
	h.enter(Failed, e)
}

// left tells whether the host has left prior. Where prior is the target itself, a
// release back in the soak of another, it has only until it is there.
func (h *Host) left() bool {
	return h.Mutated && !h.Unchanged() && (h.Prior != h.Target || !h.onPrior())
}

func (h *Host) gaveUp(b GaveUp, e Event) string {
	cause := b.Cause
	if cause == "" {
		cause = CauseProbes // an older agent knows no other
	}
	if !h.mayGiveUp(cause) {
		if h.State == Activating || h.State == Deferred || h.State == Soaking {
			return fmt.Sprintf("the cause %q is none here", cause)
		}
		return wrongState
	}
	owed := true
	switch cause {
	case CauseDrift:
		owed = false // somebody else decided what runs
	case CauseProbes:
		owed = h.Policy.OnHealthFailure != fleet.HealthHalt
	}
	h.giveUp(Failure{Cause: cause, Detail: tail(strings.Join(b.FailingProbes, ", "))}, owed, e)
	return ""
}

func (h *Host) mayGiveUp(c Cause) bool {
	switch c {
	case CauseDeadline:
		return h.State == Activating || h.State == Soaking
	case CauseSignal, CauseDrift:
		return h.State == Activating || h.State == Deferred || h.State == Soaking
	case CauseProbes, CauseConfirm, CausePersist:
		return h.State == Soaking
	}
	return false
}

// signalled takes the host's answer to a request to leave the rollout.
func (h *Host) signalled(b RollbackSignal, e Event) string {
	if !b.Obeyed {
		return ""
	}
	if why := h.disobeys(); why != "" {
		return why
	}
	if h.State == Activating && h.Mutated {
		h.SignalPending = true // a switch that runs is not interrupted
		return ""
	}
	h.giveUp(Failure{Cause: CauseSignal, Detail: tail(b.Reason)}, true, e)
	return ""
}

// disobeys says why a request to leave the rollout is not obeyed; "" when it is.
func (h *Host) disobeys() string {
	switch h.State {
	case Pending:
		return "the rollout was not accepted here"
	case Converged:
		return "the rollout has converged; only a newer one moves this host"
	case Failed, Reverted, Superseded:
		return "the rollout has been left already"
	}
	if h.Policy.OnHealthFailure == fleet.HealthHalt {
		return "the rollout's signed policy is halt"
	}
	return ""
}

// AnswerSignal is the host's answer to the control plane's request to leave its
// rollout, to be stepped and sent.
func AnswerSignal(h Host, orderID, reason string) RollbackSignal {
	why := h.disobeys()
	answer := RollbackSignal{OrderID: orderID, Reason: reason, Obeyed: why == "", Why: why}
	if answer.Obeyed {
		answer.Why = "the rollout's signed policy is rollback-and-halt"
	}
	return answer
}

func (h *Host) superseded(b WasSuperseded, e Event) string {
	if why := h.holdsOn(); why != "" {
		return why
	}
	h.SupersededBy = b.By
	h.SignalPending, h.RollbackOwed = false, false
	h.enter(Superseded, e)
	return ""
}

// holdsOn says why a newer rollout may not take over yet; "" when it may.
func (h *Host) holdsOn() string {
	switch h.State {
	case Activating:
		if h.Mutated {
			return "its switch has not ended"
		}
	case Deferred:
		if h.BootDefault != h.Prior {
			return "its target is staged: prior has to be the boot default first"
		}
	case Failed:
		if h.RollbackOwed && h.RollbackFailed == 0 {
			return "its rollback comes first"
		}
	case Converged, Reverted, Superseded:
		return wrongState
	}
	return ""
}

// maxDetail is the most bytes of text that a Failure keeps.
const maxDetail = 512

// tail is the end of the text, where programs say what went wrong, cut between
// characters.
func tail(s string) string {
	if len(s) > maxDetail {
		s = s[len(s)-maxDetail:]
	}
	return strings.ToValidUTF8(s, "")
}
