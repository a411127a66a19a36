package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// quarantineDelay is how long a closure that failed here is left alone; it
// doubles with every failure, up to quarantineDoublings times.
const (
	quarantineDelay     = 24 * time.Hour
	quarantineDoublings = 6
)

// maxQuarantines bounds the list; the oldest leaves.
const maxQuarantines = 64

// quarantine remembers a closure whose failure is its own fault, and forgets the
// failures of one that has converged.
func (t *turn) quarantine(rollout string) {
	e := t.next.find(rollout)
	switch {
	case e.Host.State == lifecycle.Converged:
		t.unquarantine(func(q journal.Quarantine) bool { return q.Channel == e.Host.Channel && q.Closure == e.Host.Target })
		return
	case e.QuarantineSet || !lifecycle.Quarantines(e.Host):
		return
	}
	q := journal.Quarantine{Quarantine: lifecycle.QuarantineOf(e.Host), Why: whyFailed(*e.Host.Failure), Count: 1}
	kept := []journal.Quarantine{}
	for _, old := range t.next.self.Quarantine {
		if old.Channel == q.Channel && old.Closure == q.Closure {
			q.Count = old.Count + 1
		} else {
			kept = append(kept, old)
		}
	}
	q.Until = t.now.UTC().Round(0).Add(quarantineDelay << min(q.Count-1, quarantineDoublings))
	if len(kept) >= maxQuarantines {
		kept = kept[1:]
	}
	t.updateSelf(func(s *journal.Self) { s.Quarantine = append(kept, q) })
	t.update(rollout, func(e *entry) { e.QuarantineSet = true })
}

// whyFailed is a failure in one line.
func whyFailed(f lifecycle.Failure) string {
	why := string(f.Cause)
	if f.Phase != "" {
		why += fmt.Sprintf(" in phase %s, exit code %d", f.Phase, f.ExitCode)
	}
	lines := strings.Split(strings.TrimSpace(f.Detail), "\n")
	if last := lines[len(lines)-1]; last != "" {
		why += ": " + last
	}
	return why
}

// unquarantine lifts the quarantines for which lifts holds, and gives those. How
// often their closures failed is forgotten with them.
func (t *turn) unquarantine(lifts func(journal.Quarantine) bool) []journal.Quarantine {
	var kept, lifted []journal.Quarantine
	for _, q := range t.next.self.Quarantine {
		if lifts(q) {
			lifted = append(lifted, q)
		} else {
			kept = append(kept, q)
		}
	}
	if len(lifted) > 0 {
		t.updateSelf(func(s *journal.Self) { s.Quarantine = kept })
	}
	return lifted
}

// unquarantineNow lifts what keeps a closure, or with "" any, from being tried.
// One whose time is over keeps nothing, and stays for its count.
func (t *turn) unquarantineNow(closure fleet.Closure) []journal.Quarantine {
	return t.unquarantine(func(q journal.Quarantine) bool {
		return t.now.Before(q.Until) && (closure == "" || q.Closure == closure)
	})
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
		Detail: fmt.Sprintf("%s failed here in %s (%s); it is tried again after %s, in a rollout with a higher attempt, or after `nixfleet-agent unquarantine`",
			h.Target, q.Rollout, q.Why, q.Until.Format(time.RFC3339)),
		RetryAfter: min(q.Until.Sub(t.now), maxRejectBackoff),
	}
}

// inQuarantine are the quarantines that keep closures from being tried now.
func (s *state) inQuarantine(now time.Time) []journal.Quarantine {
	var all []journal.Quarantine
	for _, q := range s.self.Quarantine {
		if now.Before(q.Until) {
			all = append(all, q)
		}
	}
	return all
}
