package agent

import (
	"slices"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/lifecycle"
)

// state is all that the reducer knows. A published state is never changed again:
// a turn works on a copy, in which entries are replaced as a whole.
type state struct {
	self     journal.Self
	rollouts []*entry // in the order of acceptance

	facts   *host.Facts // as last observed; nil before the first observation
	factsAt time.Time
	changes int64 // events about the machine, counted so that an older look is known for one
}

// entry is one rollout of this host. It is replaced, never changed.
type entry struct {
	journal.Rollout
	acked   int64 // number up to which the control plane has stored
	dead    int   // dead letters
	trimmed bool  // its events and its document are not held any more

	// Running time is base plus the time since: since has a monotonic reading,
	// which clock steps do not touch and which stands still in suspend.
	base  int64
	since time.Time
}

// active is the running time since the dispatch was accepted, in whole seconds.
func (e *entry) active(now time.Time) int64 {
	return e.base + int64(now.Sub(e.since)/time.Second)
}

// find gives a rollout's entry, or nil.
func (s *state) find(rollout string) *entry {
	for _, e := range s.rollouts {
		if e.Host.Rollout == rollout {
			return e
		}
	}
	return nil
}

// live is the rollout that owns the machine: the one that is live, else the
// newest that changed the machine and ended. Nil on a host that no rollout has
// touched.
func (s *state) live() *entry {
	var ended *entry
	for _, e := range s.rollouts {
		switch {
		case e.Host.Live():
			return e
		case e.Host.Mutated:
			ended = e
		}
	}
	return ended
}

// next is the newest rollout that was accepted and has not begun to change the
// machine, or nil.
func (s *state) next() *entry {
	for _, e := range slices.Backward(s.rollouts) {
		if e.Host.Mutated {
			return nil
		}
		if !e.Host.Terminal() {
			return e
		}
	}
	return nil
}

// waiting lists all rollouts that were accepted and have not begun.
func (s *state) waiting() []string {
	var ids []string
	for _, e := range s.rollouts {
		if !e.Host.Mutated && !e.Host.Terminal() {
			ids = append(ids, e.Host.Rollout)
		}
	}
	return ids
}

// newest is the rollout that was accepted last, or nil.
func (s *state) newest() *entry {
	if len(s.rollouts) == 0 {
		return nil
	}
	return s.rollouts[len(s.rollouts)-1]
}

// outboxDepth is the number of events that the control plane has not stored.
func (s *state) outboxDepth() int {
	depth := 0
	for _, e := range s.rollouts {
		depth += int(e.Host.Seq - e.acked)
	}
	return depth
}

// deadLetters is the number of events that the control plane refused.
func (s *state) deadLetters() int {
	dead := 0
	for _, e := range s.rollouts {
		dead += e.dead
	}
	return dead
}

// observed is what the machine is, as an event.
func observed(f host.Facts) lifecycle.Observed {
	return lifecycle.Observed{Current: f.Current, BootDefault: f.BootDefault, BootID: f.BootID}
}

// hostOf is the host in an entry's rollout, nil without an entry.
func hostOf(e *entry) *lifecycle.Host {
	if e == nil {
		return nil
	}
	return &e.Host
}
