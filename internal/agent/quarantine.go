package agent

import (
	"fmt"
	"slices"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// quarantineDelay is how long a closure that failed here is left alone; it
// doubles with every failure.
const quarantineDelay = 24 * time.Hour

// maxQuarantines bounds the list; the oldest leaves.
const maxQuarantines = 64

// quarantine remembers a closure whose failure is its own fault.
func (t *turn) quarantine(rollout string) {
	e := t.next.find(rollout)
	if e.QuarantineSet || !lifecycle.Quarantines(e.Host) {
		return
	}
	q := journal.Quarantine{Quarantine: lifecycle.QuarantineOf(e.Host), Count: 1}
	kept := []journal.Quarantine{}
	for _, old := range t.next.self.Quarantine {
		if old.Channel == q.Channel && old.Closure == q.Closure {
			q.Count = old.Count + 1
		} else {
			kept = append(kept, old)
		}
	}
	q.Until = t.now.UTC().Round(0).Add(quarantineDelay << min(q.Count-1, 6))
	if len(kept) >= maxQuarantines {
		kept = kept[1:]
	}
	t.updateSelf(func(s *journal.Self) { s.Quarantine = append(kept, q) })
	t.update(rollout, func(e *entry) { e.QuarantineSet = true })
}

// quarantined refuses a target that failed here before, unless a person asked for
// it again by a later, higher attempt.
func (t *turn) quarantined(h lifecycle.Host) error {
	i := slices.IndexFunc(t.next.self.Quarantine, func(q journal.Quarantine) bool {
		return q.Blocks(h) && t.now.Before(q.Until)
	})
	if i < 0 {
		return nil
	}
	q := t.next.self.Quarantine[i]
	return &rejection{
		Reason: wire.RejectQuarantined,
		Detail: fmt.Sprintf("%s failed here in %s; it is tried again after %s, or in a rollout with a higher attempt",
			h.Target, q.Rollout, q.Until.Format(time.RFC3339)),
		RetryAfter: min(q.Until.Sub(t.now), maxRejectBackoff),
	}
}
