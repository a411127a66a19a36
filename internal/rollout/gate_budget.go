package rollout

import (
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// gateBudget blocks a host that needs a slot when one of its manifest's budgets
// has none left.
func gateBudget(c *candidate) string {
	if c.there() {
		return ""
	}
	return c.slots.full(c.plan, c.id)
}

// holdsSlot tells whether the host is, or may be, out of service for the
// rollout's sake. A host that an operator skipped before its change began, or
// while it was lost, holds none: it is taken for dead. Should it come back it
// goes on, and takes its slot again without being asked.
func (h *HostRow) holdsSlot() bool {
	byOperator := h.Skip != nil && h.Skip.Reason == SkipOperator
	switch {
	case h.Slotless:
		return false
	case byOperator && (h.Lost != nil || !h.Mutated):
		return false
	case h.Order != nil || h.Lost != nil:
		return true
	}
	switch h.State {
	case lifecycle.Activating, lifecycle.Soaking:
		return true
	case lifecycle.Failed:
		return h.RollbackOwed
	case lifecycle.Deferred:
		return h.Policy.Reboot == fleet.RebootInWindow
	}
	return false
}

// slots are the hosts that hold one, each once however many rollouts it is in,
// and how many of each budget's hosts they are.
type slots struct {
	index *index
	held  []bool // by host
	used  []int  // by budget
}

// slots counts from the state of all rollouts.
func (w *World) slots(x *index) *slots {
	s := &slots{index: x, held: make([]bool, len(x.naming)), used: make([]int, len(x.budgets))}
	for _, r := range x.rollouts {
		if !r.anyBegun() {
			continue
		}
		for i := range r.Hosts {
			if h := &r.Hosts[i]; h.holdsSlot() && !w.removed(h.Hostname) {
				if id, ok := x.hosts[h.Hostname]; ok {
					s.take(id)
				}
			}
		}
	}
	return s
}

// take gives the host a slot.
func (s *slots) take(host int32) {
	if s.held[host] {
		return
	}
	s.held[host] = true
	for _, b := range s.index.naming[host] {
		s.used[b]++
	}
}

// full is the plan's first budget without a slot for the host, or ""; without a
// plan, the first of all. A host that holds a slot in another rollout already
// needs no second one.
func (s *slots) full(p *plan, host int32) string {
	for _, b := range s.index.naming[host] {
		others := s.used[b]
		if s.held[host] {
			others--
		}
		if (p == nil || p.own[b]) && others >= s.index.budgets[b].limit {
			return s.index.budgets[b].name
		}
	}
	return ""
}

// hasSlot tells whether the budgets leave a slot for the host. In a rollout that
// was superseded those of the newest ones count, all that name it.
func (w *World) hasSlot(r *Rollout, host string) bool {
	x := w.indexed()
	id, named := x.hosts[host]
	return !named || w.slots(x).full(x.plans[r.ID], id) == ""
}
