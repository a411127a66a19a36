package rollout

import (
	"cmp"
	"slices"
	"time"
)

// Publish makes a release the newest. Rollouts of it open with the next Plan.
// A host that is declared for the first time counts as heard now.
func Publish(w *World, r *Release) {
	w.Release = r
	for name := range r.Fleet.Hosts {
		if w.Machines[name] == nil {
			w.Machines[name] = &Machine{Seen: w.Ready}
		}
	}
}

// Prunable lists, by opening, the rollouts that a Removed may prune: they ended
// or were superseded before the given time, are not their channel's newest, and
// no host of theirs has anything left to do.
func Prunable(w *World, before time.Time) []string {
	var old []*Rollout
	for _, r := range w.Rollouts {
		if !w.isNewest(r) && !r.State.Unfinished() && r.Since.Before(before) && !r.anyBegun() {
			old = append(old, r)
		}
	}
	slices.SortFunc(old, byOpening)
	ids := make([]string, len(old))
	for i, r := range old {
		ids[i] = r.ID
	}
	return ids
}

func byOpening(a, b *Rollout) int { return cmp.Compare(a.Opening, b.Opening) }
