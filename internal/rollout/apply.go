package rollout

import (
	"fmt"

	"nixfleet/internal/lifecycle"
)

// Apply applies one action. An action that does not fit the world gives a
// *Conflict and changes nothing.
func Apply(w *World, a Action) error {
	if err := a.Body.check(w); err != nil {
		return &Conflict{Kind: a.Body.Kind(), Why: err.Error()}
	}
	w.Ready = max(w.Ready, a.Ready)
	a.Body.apply(w, moment{at: a.At, ready: a.Ready})
	return nil
}

// Conflict is why an action does not fit the world. An operator's request is
// answered with it, 409.
type Conflict struct {
	Kind Kind
	Why  string
}

func (c *Conflict) Error() string { return fmt.Sprintf("%s: %s", c.Kind, c.Why) }

// find is a rollout and one of its hosts.
func (w *World) find(id, host string) (*Rollout, *HostRow, error) {
	r, err := w.rollout(id)
	if err != nil {
		return nil, nil, err
	}
	h := r.Host(host)
	if h == nil {
		return nil, nil, fmt.Errorf("host %s is not in rollout %s", host, id)
	}
	return r, h, nil
}

func (w *World) rollout(id string) (*Rollout, error) {
	if r := w.Rollouts[id]; r != nil {
		return r, nil
	}
	if _, pruned := w.Tombstones[id]; pruned {
		return nil, fmt.Errorf("rollout %s was pruned", id)
	}
	return nil, fmt.Errorf("there is no rollout %s", id)
}

// newest is the rollout, when it is the newest of its channel.
func (w *World) newest(id string) (*Rollout, error) {
	r, err := w.rollout(id)
	if err != nil {
		return nil, err
	}
	if !w.isNewest(r) {
		return nil, fmt.Errorf("rollout %s is not the newest of channel %s: %s is", id, r.Channel, w.Channels[r.Channel].Newest)
	}
	return r, nil
}

func (w *World) isNewest(r *Rollout) bool { return w.Channels[r.Channel].Newest == r.ID }

// change changes a row that was found before, keeping count of the rows that
// have begun and not ended.
func (w *World) change(id, host string, f func(r *Rollout, h *HostRow)) {
	r := w.Rollouts[id]
	h := r.Host(host)
	before := h.begun()
	f(r, h)
	switch after := h.begun(); {
	case !r.counted || before == after:
	case after:
		r.begun++
	default:
		r.begun--
	}
}

// begun tells whether the planner must look after the row even when a newer
// rollout has opened: it may hold a slot, be lost, or be asked for an answer.
func (h *HostRow) begun() bool {
	return h.Order != nil || h.Signal != nil || h.Lost != nil || h.State != lifecycle.Pending && !h.Terminal()
}

// anyBegun tells whether any row has begun and not ended.
func (r *Rollout) anyBegun() bool {
	if !r.counted {
		r.begun, r.counted = 0, true
		for i := range r.Hosts {
			if r.Hosts[i].begun() {
				r.begun++
			}
		}
	}
	return r.begun > 0
}

// enter moves the rollout to a state.
func (r *Rollout) enter(s State, when moment) { r.State, r.Since = s, when.at }
