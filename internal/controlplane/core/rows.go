package core

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
)

// The tables of the checkpoint. All but rowMachine are what the log folds to.
const (
	rowWorld   = "world"
	rowRollout = "rollout"
	rowHost    = "host"
	rowTrack   = "track"
	rowMachine = "machine" // what hosts said about themselves; a rebuild keeps it
)

// worldRow is the part of the world that belongs to no rollout.
type worldRow struct {
	Ready       time.Duration               `json:"ready"`
	Recovery    *rollout.Flag               `json:"recovery,omitempty"`
	Channels    map[string]*rollout.Channel `json:"channels"`
	Quarantines []rollout.Quarantine        `json:"quarantines,omitempty"`
	Forgotten   map[string]rollout.Flag     `json:"forgotten,omitempty"`
	GivenBefore map[string]time.Time        `json:"givenBefore,omitempty"`
	Tombstones  map[string]string           `json:"tombstones,omitempty"`
	LastOpening int64                       `json:"lastOpening"`
}

// dirty is what was changed since the checkpoint. What is marked and not there
// any more is deleted.
type dirty struct {
	world    bool
	rollouts map[string]bool
	hosts    map[track]bool
	tracks   map[track]bool
	machines map[string]bool
}

func newDirty() dirty {
	return dirty{
		rollouts: map[string]bool{}, hosts: map[track]bool{},
		tracks: map[track]bool{}, machines: map[string]bool{},
	}
}

// wholeRollout marks a rollout and all of its hosts.
func (d *dirty) wholeRollout(w *rollout.World, id string) {
	r := w.Rollouts[id]
	if r == nil {
		return
	}
	d.rollouts[id] = true
	for i := range r.Hosts {
		d.hosts[track{id, r.Hosts[i].Hostname}] = true
	}
}

// changed takes the rows that the checkpoint lacks.
func (s *state) changed() ([]store.Row, error) {
	d := s.dirty
	s.dirty = newDirty()
	w := rowWriter{}
	if d.world {
		w.put(rowWorld, "", "", s.worldRow())
	}
	for id := range d.rollouts {
		if r := s.world.Rollouts[id]; r != nil {
			w.put(rowRollout, id, "", r)
		} else {
			w.drop(rowRollout, id, "")
		}
	}
	for t := range d.hosts {
		if h := s.row(t); h != nil {
			w.put(rowHost, t.rollout, t.host, hostRow(h))
		} else {
			w.drop(rowHost, t.rollout, t.host)
		}
	}
	for t := range d.tracks {
		if tr := s.known(t); tr != nil {
			w.put(rowTrack, t.rollout, t.host, tr)
		} else {
			w.drop(rowTrack, t.rollout, t.host)
		}
	}
	now := time.Now()
	for host := range d.machines {
		m := s.machines[host]
		m.written = now
		w.put(rowMachine, host, "", m)
	}
	return w.rows, w.err
}

// hostRow is a row without its policy, which the rollout's manifest has.
func hostRow(h *rollout.HostRow) rollout.HostRow {
	row := *h
	row.Policy = fleet.Policy{}
	return row
}

func (s *state) worldRow() worldRow {
	w := s.world
	return worldRow{w.Ready, w.Recovery, w.Channels, w.Quarantines, w.Forgotten, w.GivenBefore, w.Tombstones, w.LastOpening}
}

type rowWriter struct {
	rows []store.Row
	err  error
}

func (w *rowWriter) put(table, key, sub string, value any) {
	body, err := json.Marshal(value)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("encode row %s %s %s: %w", table, key, sub, err)
	}
	w.rows = append(w.rows, store.Row{Table: table, Key: key, Sub: sub, Body: body})
}

func (w *rowWriter) drop(table, key, sub string) {
	w.rows = append(w.rows, store.Row{Table: table, Key: key, Sub: sub})
}

// load reads the state from the checkpoint, the documents and the issuances.
func load(ctx context.Context, st store.Store) (*state, error) {
	s := newState(st)
	if err := st.Issuances(ctx, s.fold); err != nil {
		return nil, err
	}
	var hosts []store.Row
	err := st.Rows(ctx, func(r store.Row) error {
		if r.Table == rowHost { // after the rollouts
			hosts = append(hosts, r)
			return nil
		}
		return s.readRow(r)
	})
	if err != nil {
		return nil, err
	}
	// Documents show the planner the newest release; what they did to the world
	// then is in the rows.
	if err := st.Documents(ctx, s.fold); err != nil {
		return nil, err
	}
	for _, r := range hosts {
		if err := s.readRow(r); err != nil {
			return nil, err
		}
	}
	return s, s.complete()
}

func (s *state) fold(r store.Record) error { return s.apply(&r) }

// complete puts together what rows keep apart: rollouts, their manifests, and
// the policy of every host.
func (s *state) complete() error {
	for id, r := range s.world.Rollouts {
		m := s.manifests[id]
		if m == nil {
			return fmt.Errorf("rollout %s has no manifest", id)
		}
		r.Manifest = m.Doc()
		slices.SortFunc(r.Hosts, func(a, b rollout.HostRow) int {
			return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.Hostname, b.Hostname))
		})
		for i := range r.Hosts {
			h := &r.Hosts[i]
			fresh, err := lifecycle.New(h.Hostname, id, r.Manifest, r.PlanHash, r.FirstSignedAt)
			if err != nil {
				return err
			}
			h.Policy = fresh.Policy
		}
	}
	s.dirty, s.docsChanged = newDirty(), false
	return nil
}

func (s *state) readRow(r store.Row) error {
	var err error
	switch r.Table {
	case rowWorld:
		var row worldRow
		err = json.Unmarshal(r.Body, &row)
		w := s.world
		w.Ready, w.Recovery, w.Quarantines, w.LastOpening = row.Ready, row.Recovery, row.Quarantines, row.LastOpening
		maps.Copy(w.Channels, row.Channels)
		maps.Copy(w.Forgotten, row.Forgotten)
		maps.Copy(w.GivenBefore, row.GivenBefore)
		maps.Copy(w.Tombstones, row.Tombstones)
	case rowRollout:
		ro := &rollout.Rollout{}
		err = json.Unmarshal(r.Body, ro)
		s.world.Rollouts[r.Key] = ro
	case rowHost:
		var row rollout.HostRow
		err = json.Unmarshal(r.Body, &row)
		if ro := s.world.Rollouts[r.Key]; ro != nil {
			ro.Hosts = append(ro.Hosts, row)
		}
	case rowTrack:
		row := &trackRow{}
		err = json.Unmarshal(r.Body, row)
		s.setTrack(track{r.Key, r.Sub}, row)
	case rowMachine:
		row := &machine{}
		err = json.Unmarshal(r.Body, row)
		s.machines[r.Key] = row
		s.world.Machines[r.Key] = row.Machine
	}
	if err != nil {
		return fmt.Errorf("row %s %s %s: %w", r.Table, r.Key, r.Sub, err)
	}
	return nil
}
