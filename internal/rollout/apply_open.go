package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"nixfleet/internal/lifecycle"
)

func (a Opened) check(w *World) error {
	if w.Release == nil || w.Release.FleetHash != a.FleetHash {
		return fmt.Errorf("fleet document %s is not the newest", a.FleetHash)
	}
	for _, n := range a.Rollouts {
		m, ok := w.Release.Manifests[n.Channel]
		switch {
		case !ok || m.Doc.ID() != n.ID || m.PlanHash != n.PlanHash:
			return fmt.Errorf("the release holds no manifest of %s with this plan", n.ID)
		case w.known(n.ID):
			return fmt.Errorf("rollout %s was opened before", n.ID)
		}
		if _, err := hostRows(n.ID, m); err != nil {
			return err
		}
		if older := w.unfinished(n.Channel); older != n.Supersedes {
			return fmt.Errorf("the unfinished rollout of channel %s is %q, not %q", n.Channel, older, n.Supersedes)
		}
	}
	return nil
}

func (a Opened) apply(w *World, when moment) {
	quarantined := w.quarantines()
	for _, n := range a.Rollouts {
		r := w.open(w.Release.Manifests[n.Channel], when)
		for i := range r.Hosts {
			h := &r.Hosts[i]
			if q, ok := quarantined.bars(r, h.Target); ok {
				h.Skip = &Skip{Reason: SkipQuarantine, Flag: Flag{Why: q.why(), At: when.at}}
			}
		}
		w.supersede(n, when)
	}
	w.index = nil
}

// open writes a rollout and its rows.
func (w *World) open(m Manifest, when moment) *Rollout {
	w.LastOpening++
	r := &Rollout{
		ID: m.Doc.ID(), Channel: m.Doc.Channel, PlanHash: m.PlanHash, Manifest: m.Doc,
		FirstSignedAt: m.SignedAt, SignedAt: m.SignedAt, FleetSignedAt: w.Release.SignedAt,
		Opening: w.LastOpening, OpenedAt: when.at,
	}
	r.enter(Opening, when)
	r.Hosts, _ = hostRows(r.ID, m) // checked before
	r.Wave = r.Hosts[0].Wave
	r.enter(Active, when)
	w.Rollouts[r.ID] = r
	return r
}

// supersede makes the new rollout its channel's newest. What was unfinished is
// superseded; what had ended keeps its end. Of neither is any order left that
// was not handed out.
func (w *World) supersede(n NewRollout, when moment) {
	ch := w.channel(n.Channel)
	if older := w.Rollouts[ch.Newest]; older != nil {
		older.SupersededBy = n.ID
		if older.State.Unfinished() {
			older.enter(Superseded, when)
		}
		for i := range older.Hosts {
			w.change(older.ID, older.Hosts[i].Hostname, func(_ *Rollout, h *HostRow) {
				h.Deferral = nil
				if h.Signal != nil && !h.Signal.Sent {
					h.Signal = nil
				}
			})
		}
	}
	ch.Newest = n.ID
}

// hostRows are the rows that a manifest's rollout opens with, by wave, then name.
func hostRows(id string, m Manifest) ([]HostRow, error) {
	if len(m.Doc.HostSet) == 0 {
		return nil, errors.New("the manifest has no hosts")
	}
	rows := make([]HostRow, 0, len(m.Doc.HostSet))
	for _, t := range m.Doc.HostSet {
		h, err := lifecycle.New(t.Hostname, id, m.Doc, m.PlanHash, m.SignedAt)
		if err != nil {
			return nil, err
		}
		rows = append(rows, HostRow{Host: h})
	}
	slices.SortFunc(rows, func(a, b HostRow) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.Hostname, b.Hostname))
	})
	return rows, nil
}

// known tells whether a rollout of that id was ever opened.
func (w *World) known(id string) bool {
	_, err := w.rollout(id)
	_, pruned := w.Tombstones[id]
	return err == nil || pruned
}

// unfinished is the channel's newest rollout, when it is unfinished.
func (w *World) unfinished(channel string) string {
	if ch := w.Channels[channel]; ch != nil {
		if r := w.Rollouts[ch.Newest]; r != nil && r.State.Unfinished() {
			return r.ID
		}
	}
	return ""
}

// channel is the channel of that name, which exists from now on.
func (w *World) channel(name string) *Channel {
	ch := w.Channels[name]
	if ch == nil {
		ch = &Channel{}
		w.Channels[name] = ch
	}
	return ch
}

func (a Refreshed) check(w *World) error {
	r, err := w.rollout(a.Rollout)
	if err != nil {
		return err
	}
	if w.Release == nil || w.Release.FleetHash != a.FleetHash {
		return fmt.Errorf("fleet document %s is not the newest", a.FleetHash)
	}
	m, ok := w.Release.Manifests[r.Channel]
	if !ok || !r.refreshedBy(m) || !m.SignedAt.Equal(a.SignedAt) {
		return fmt.Errorf("the release holds no newer bytes of %s with the same plan", a.Rollout)
	}
	return nil
}

func (a Refreshed) apply(w *World, _ moment) {
	r := w.Rollouts[a.Rollout]
	m := w.Release.Manifests[r.Channel]
	r.Manifest, r.SignedAt, r.FleetSignedAt = m.Doc, m.SignedAt, w.Release.SignedAt
	for i := range r.Hosts {
		if h := &r.Hosts[i]; h.Reject != nil {
			h.Reject.Retry = 0 // other bytes may please the host
		}
	}
}

// refreshedBy tells whether the manifest holds newer bytes of the rollout's plan.
func (r *Rollout) refreshedBy(m Manifest) bool {
	return m.Doc.ID() == r.ID && m.PlanHash == r.PlanHash && m.SignedAt.After(r.SignedAt)
}

func (a Removed) check(w *World) error {
	r, err := w.rollout(a.Rollout)
	switch {
	case err != nil:
		return err
	case w.isNewest(r):
		return fmt.Errorf("rollout %s is the newest of channel %s", r.ID, r.Channel)
	case r.State.Unfinished():
		return fmt.Errorf("rollout %s is %s", r.ID, r.State)
	}
	return nil
}

func (a Removed) apply(w *World, _ moment) {
	w.Tombstones[a.Rollout] = w.Rollouts[a.Rollout].PlanHash
	delete(w.Rollouts, a.Rollout)
	w.index = nil
}
