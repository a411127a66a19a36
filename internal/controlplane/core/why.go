package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// why is the one sentence that answers "why is it not converged?"; "" for a host
// that is. What a host said last is told as such when it has fallen silent since.
func why(v wire.HostView, h *rollout.HostRow) string {
	switch {
	case h == nil && v.Channel == "":
		return "It is not in the fleet document."
	case h == nil:
		return "No rollout of its channel has a target for it."
	case h.State == lifecycle.Converged:
		return ""
	}
	reason := whyNot(v, h)
	switch {
	case !slices.Contains(v.Conditions, wire.ConditionUnseen):
		return reason
	case v.LastSeenAt.IsZero():
		return "It was never heard of: " + reason
	}
	return fmt.Sprintf("Nothing was heard of it since %s; as far as is known: %s", v.LastSeenAt.UTC().Format(time.RFC3339), reason)
}

// whyNot is the reason of a host that has a target: what it has come to first, then
// what the control plane holds back, then what the host itself waits for.
func whyNot(v wire.HostView, h *rollout.HostRow) string {
	switch {
	case h.Lost != nil:
		return "It fell silent in the middle of a change and counts as failed until it returns or is skipped."
	case h.Failure != nil:
		return fmt.Sprintf("It gave up the target (%s): %s", h.Failure.Cause, h.Failure.Detail)
	case h.Skip != nil && h.Skip.Reason == rollout.SkipQuarantine:
		return rollout.GateQuarantine.Sentence() + ": " + h.Skip.Why
	case h.Skip != nil:
		return fmt.Sprintf("It is skipped (%s): %s", h.Skip.Reason, h.Skip.Why)
	case h.State == lifecycle.Pending && h.Deferral != nil:
		return h.Deferral.Gate.Sentence() + ": " + h.Deferral.Detail
	case h.Reject != nil:
		return refusal(h.Reject)
	case v.Enrolment != nil:
		return fmt.Sprintf("It has no certificate (%s): %s", v.Enrolment.Kind, v.Enrolment.Reason)
	case h.Order != nil:
		return "It was handed the order and has not answered yet."
	case h.State == lifecycle.Pending:
		return "It has not asked for an order yet."
	}
	var waits []string
	for _, on := range v.WaitingOn {
		if on != wire.WaitingOnNone {
			waits = append(waits, on.Sentence())
		}
	}
	if len(waits) > 0 {
		return strings.Join(waits, " ")
	}
	return fmt.Sprintf("It is %s.", h.State)
}

// refusal is what a host that refused its order waits for, if what it refused for
// can end by itself, and what it said.
func refusal(r *rollout.Reject) string {
	said := fmt.Sprintf("It refused the order (%s): %s", r.Reason, r.Detail)
	on, ok := map[wire.RejectReason]wire.WaitingOn{
		wire.RejectHeld:         wire.WaitingOnHold,
		wire.RejectClockSuspect: wire.WaitingOnClock,
		wire.RejectQuarantined:  wire.WaitingOnQuarantine,
	}[wire.RejectReason(r.Reason)]
	if !ok {
		return said
	}
	return on.Sentence() + " " + said
}
