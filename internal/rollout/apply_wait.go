package rollout

import (
	"fmt"
	"slices"

	"nixfleet/internal/lifecycle"
)

func (a Advanced) check(w *World) error {
	r, err := w.newest(a.Rollout)
	if err != nil {
		return err
	}
	if next, ok := r.nextWave(); r.State != Active || !ok || next != a.Wave {
		return fmt.Errorf("rollout %s is %s in wave %d", r.ID, r.State, r.Wave)
	}
	return nil
}

func (a Advanced) apply(w *World, _ moment) { w.Rollouts[a.Rollout].Wave = a.Wave }

func (a Skipped) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	switch {
	case err != nil:
		return err
	case h.Terminal():
		return fmt.Errorf("host %s has ended: it is %s", a.Host, h.State)
	case h.Skip != nil && (h.Skip.Reason == SkipOperator || a.Reason != SkipOperator):
		return fmt.Errorf("host %s is skipped already: %s", a.Host, h.Skip.Reason)
	}
	return nil
}

func (a Skipped) apply(w *World, when moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) {
		h.Skip = &Skip{Reason: a.Reason, Flag: Flag{Who: a.Who, Why: a.Why, At: when.at}}
		h.Order = nil
		h.Deferral = nil
	})
}

func (a Joined) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	if err == nil && h.Skip == nil {
		err = fmt.Errorf("host %s is not skipped", a.Host)
	}
	return err
}

func (a Joined) apply(w *World, _ moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) { h.Skip = nil })
}

func (a Lost) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	switch {
	case err != nil:
		return err
	case h.Lost != nil:
		return fmt.Errorf("host %s is lost already", a.Host)
	case !h.Live():
		return fmt.Errorf("host %s is not being changed: it is %s", a.Host, h.State)
	}
	return nil
}

func (a Lost) apply(w *World, when moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) { h.Lost = &Flag{At: when.at} })
}

func (a Found) check(w *World) error {
	_, h, err := w.find(a.Rollout, a.Host)
	if err == nil && h.Lost == nil {
		err = fmt.Errorf("host %s is not lost", a.Host)
	}
	return err
}

func (a Found) apply(w *World, _ moment) {
	w.change(a.Rollout, a.Host, func(_ *Rollout, h *HostRow) { h.Lost = nil })
}

func (a Halted) check(w *World) error {
	r, err := w.newest(a.Rollout)
	if err == nil && !r.State.Unfinished() {
		err = fmt.Errorf("rollout %s is %s", r.ID, r.State)
	}
	return err
}

func (a Halted) apply(w *World, when moment) {
	r := w.Rollouts[a.Rollout]
	r.enter(Failed, when)
	r.Halt = &Halt{Flag: Flag{At: when.at}, Hosts: slices.Clone(a.Hosts), Limit: a.Limit}
}

func (a Moved) check(w *World) error {
	r, err := w.rollout(a.Rollout)
	if err != nil {
		return err
	}
	if to, ok := w.destination(r); !ok || to != a.To {
		return fmt.Errorf("rollout %s is %s", r.ID, r.State)
	}
	return nil
}

func (a Moved) apply(w *World, when moment) { w.Rollouts[a.Rollout].enter(a.To, when) }

// destination is the state that the rollout's hosts have led it to: Active to
// Converging, both to Terminal, Failed to Reverted.
func (w *World) destination(r *Rollout) (State, bool) {
	switch r.State {
	case Active, Converging:
		if _, more := r.nextWave(); more {
			return "", false
		}
		if w.allDone(r) {
			return Terminal, true
		}
		if r.State == Active && !w.anyPending(r) {
			return Converging, true
		}
	case Failed:
		if r.rolledBack() {
			return Reverted, true
		}
	}
	return "", false
}

// rolledBack tells whether hosts went back and none still has to.
func (r *Rollout) rolledBack() bool {
	any := false
	for i := range r.Hosts {
		h := &r.Hosts[i]
		if h.RollbackOwed || h.Signal != nil && h.Lost == nil {
			return false
		}
		any = any || h.State == lifecycle.Reverted
	}
	return any
}

// anyPending tells whether a host that is waited for has not begun.
func (w *World) anyPending(r *Rollout) bool {
	for i := range r.Hosts {
		if h := &r.Hosts[i]; h.State == lifecycle.Pending && h.Skip == nil && !w.gone(r, h.Hostname) {
			return true
		}
	}
	return false
}
