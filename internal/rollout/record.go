package rollout

import (
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// Record takes what lifecycle.Step made of a host's event: the row's new mirror,
// and what follows from it for the planner. Body is nil when Step refused the
// event. The rollout itself is moved by Plan alone. A host or rollout that is not
// there gives an error.
func Record(w *World, after lifecycle.Host, body lifecycle.Body) error {
	if _, _, err := w.find(after.Rollout, after.Hostname); err != nil {
		return err
	}
	w.change(after.Rollout, after.Hostname, func(_ *Rollout, h *HostRow) {
		quarantined := lifecycle.Quarantines(h.Host)
		h.Host = after
		h.took(body)
		if !quarantined && lifecycle.Quarantines(after) {
			w.quarantine(after)
		}
	})
	return nil
}

// took settles what the planner held about the host before this event.
func (h *HostRow) took(body lifecycle.Body) {
	switch b := body.(type) {
	case lifecycle.DispatchAck:
		h.Slotless = changesNothing(b, h.Target)
	case lifecycle.ActivationStarted:
		h.Slotless = h.Unchanged()
	case lifecycle.RollbackSignal:
		if h.Signal != nil && h.Signal.ID == b.OrderID {
			h.Signal = nil
		}
	}
	if h.State != lifecycle.Pending {
		h.Order, h.Reject, h.Deferral = nil, nil, nil
	}
	if h.Terminal() {
		h.Signal = nil
	}
}

// changesNothing tells whether the acknowledging host runs the target and would
// also go back to it. An older agent does not say where to.
func changesNothing(ack lifecycle.DispatchAck, target fleet.Closure) bool {
	return ack.CurrentClosureAtDispatch == target && (ack.PriorClosure == "" || ack.PriorClosure == target)
}

// MayAcknowledge tells whether a DispatchAck may be stored: the host holds a
// slot, needs none, or there is one for it. If it may not, the host is answered
// no-slot and does not start. Acknowledgements that are replayed into a
// recovering database are history and may always be stored.
func MayAcknowledge(w *World, rollout, host string, ack lifecycle.DispatchAck) bool {
	r, h, err := w.find(rollout, host)
	switch {
	case err != nil, w.Recovery != nil, h.State != lifecycle.Pending, changesNothing(ack, h.Target):
		return true
	case h.Order != nil && !h.Slotless:
		return true
	}
	return w.hasSlot(r, host)
}
