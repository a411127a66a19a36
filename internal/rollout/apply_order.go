package rollout

import (
	"fmt"

	"nixfleet/internal/lifecycle"
)

func (a Delivered) check(w *World) error {
	r, err := w.newest(a.Rollout)
	if err != nil {
		return err
	}
	_, h, err := w.find(a.Rollout, a.Host)
	switch {
	case err != nil:
		return err
	case r.State.Halted():
		return fmt.Errorf("rollout %s is %s", r.ID, r.State)
	case h.State != lifecycle.Pending:
		return fmt.Errorf("host %s is %s", a.Host, h.State)
	case h.Order != nil:
		return fmt.Errorf("host %s has order %s already", a.Host, h.Order.ID)
	}
	return nil
}

func (a Delivered) apply(w *World, when moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) {
		h.Order = &Order{ID: a.OrderID, At: when.at, Ready: when.ready}
		h.Orders++
		h.Slotless = a.Slotless
		h.Deferral = nil
	})
	w.unpark(a.Host)
}

// unpark takes the host's poll, which an order has answered.
func (w *World) unpark(host string) {
	if m := w.Machines[host]; m != nil {
		m.Parked = false
	}
}

func (a Released) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	if err != nil {
		return err
	}
	return h.holds(a.OrderID)
}

func (a Released) apply(w *World, _ moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) { h.Order = nil })
}

func (h *HostRow) holds(order string) error {
	if h.Order == nil || h.Order.ID != order {
		return fmt.Errorf("host %s does not hold order %s", h.Hostname, order)
	}
	return nil
}

func (a Rejected) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	switch {
	case err != nil:
		return err
	case h.State != lifecycle.Pending:
		return fmt.Errorf("host %s has acknowledged rollout %s", a.Host, a.Rollout)
	}
	return nil
}

// A reject to an order that was released meanwhile is still the host's word.
func (a Rejected) apply(w *World, when moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) {
		since := when.ready
		if h.Reject != nil {
			since = h.Reject.Since
		}
		h.Reject = &Reject{
			Reason: a.Reason, Detail: a.Detail, At: when.at,
			Ready: when.ready, Since: since, Retry: when.ready + a.RetryAfter,
		}
		if h.holds(a.OrderID) == nil {
			h.Order = nil
		}
	})
}

func (a Signalled) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	switch {
	case err != nil:
		return err
	case h.Signal == nil || h.Signal.ID != a.OrderID:
		return fmt.Errorf("host %s is not asked by order %s", a.Host, a.OrderID)
	}
	return nil
}

func (a Signalled) apply(w *World, when moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) {
		h.Signal.Sent, h.Signal.Ready = true, when.ready
	})
	w.unpark(a.Host)
}

func (a Deferred) check(w *World) error {
	_, _, err := w.find(a.Rollout, a.Host)
	return err
}

func (a Deferred) apply(w *World, _ moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) {
		h.Deferral = nil
		if a.Gate != "" {
			h.Deferral = &Deferral{Gate: a.Gate, Detail: a.Detail}
		}
	})
}

// orderID names the next order to the host.
func (h *HostRow) orderID() string {
	return fmt.Sprintf("%s/%s/%d", h.Rollout, h.Hostname, h.Orders+1)
}
