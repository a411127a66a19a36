package lifecycle

import "fmt"

// Step applies one event. It returns the host after it and never changes what h
// refers to.
//
// A number that was taken before gives h and no error: whether a repeat is the
// same event is for the caller to see, who has the bytes. A number further ahead
// gives h and a *Gap. An event that the table does not allow gives a *Refused,
// and h with that event's number, because a refused event has had it.
func Step(h Host, e Event) (Host, error) {
	if 1 <= e.Seq && e.Seq <= h.Seq {
		return h, nil
	}
	if e.Seq != h.Seq+1 {
		return h, &Gap{Have: h.Seq, Got: e.Seq}
	}
	next := h
	next.Seq = e.Seq
	next.Active = max(h.Active, e.Active) // running time does not run backwards, whatever the event says
	if why := next.apply(e); why != "" {
		h.Seq = e.Seq
		return h, &Refused{State: h.State, Kind: kindOf(e), Why: why}
	}
	return next, nil
}

// apply changes h by the event, which has h.Seq and is not after h.Active, or
// says why the event is refused. Then h is of no more use.
func (h *Host) apply(e Event) (why string) {
	switch b := e.Body.(type) {
	case ProbeResult:
		return h.probed(b.ProbeName, b.Status)
	case ProbeObservedFirst:
		return h.probed(b.ProbeName, Pass)
	case ProbeFailureFirst:
		return h.probed(b.ProbeName, Fail)
	case ProbeTopologyDeclared:
		return h.declared(b)
	case DispatchAck:
		return h.accepted(b, e)
	case ActivationStarted:
		return h.started(b)
	case ActivationCompleted:
		return h.completed(b, e)
	case ActivationDeferred:
		return h.deferred(e)
	case ActivationFailed:
		return h.activationFailed(b, e)
	case Confirmed:
		return h.confirmed(b)
	case Persisted:
		return h.persistedNow()
	case PersistFailed:
		return h.persistFailed()
	case HasConverged:
		return h.converged(b, e)
	case HealthChanged:
		return h.healthChanged(b)
	case GaveUp:
		return h.gaveUp(b, e)
	case RollbackSignal:
		return h.signalled(b, e)
	case RollbackFailed:
		return h.rollbackFailed(b)
	case RollbackComplete:
		return h.rolledBack(b, e)
	case RebootStarted:
		return h.rebooting()
	case Observed:
		h.observed(b, e)
		return ""
	case WasSuperseded:
		return h.superseded(b, e)
	case Notice:
		return "" // about the host, not about the rollout
	}
	return "the event is not known here"
}

// wrongState refuses an event that has no row for the host's state.
const wrongState = "there is no such transition"

// enter goes to a state.
func (h *Host) enter(s State, e Event) {
	h.State, h.Since = s, e.At
}

// Gap says that events are missing before this one.
type Gap struct {
	Have int64 // the last number taken
	Got  int64
}

func (g *Gap) Error() string {
	return fmt.Sprintf("event %d does not follow event %d", g.Got, g.Have)
}

// Refused says that the event is not legal for this host. Its number is taken.
type Refused struct {
	State State
	Kind  Kind
	Why   string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("%s refused in state %s: %s", r.Kind, r.State, r.Why)
}

// kindOf names the event in an error, also one without a body.
func kindOf(e Event) Kind {
	if e.Body == nil {
		return "event without a body"
	}
	return e.Body.Kind()
}
