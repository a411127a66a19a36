package core

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"nixfleet/internal/controlplane/store"
)

// Rebuild folds the whole log anew and replaces the checkpoint by what it comes
// to. What hosts said about themselves is not in the log and stays as it is. No
// core may be running on the store.
func Rebuild(ctx context.Context, st store.Store) error {
	s, err := folded(ctx, st)
	if err != nil {
		return err
	}
	return st.Rebuild(ctx, func(put func(store.Row) error) error {
		rows, err := s.all()
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := put(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// folded is the state that the log folds to.
func folded(ctx context.Context, st store.Store) (*state, error) {
	s := newState(st)
	var ready time.Duration // it went on after the last action
	err := st.Rows(ctx, func(r store.Row) error {
		switch r.Table {
		case rowMachine:
			return s.readRow(r)
		case rowWorld:
			var w worldRow
			err := json.Unmarshal(r.Body, &w)
			ready = w.Ready
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = st.Replay(ctx, 0, func(r store.Record) error {
		if err := s.apply(&r); err != nil {
			return fmt.Errorf("record %d: %w", r.LogID, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.world.Ready = max(s.world.Ready, ready)
	return s, nil
}

// all is every row of the state.
func (s *state) all() ([]store.Row, error) {
	s.dirty = newDirty()
	s.dirty.world = true
	for id := range s.world.Rollouts {
		s.dirty.wholeRollout(s.world, id)
	}
	for host, rollouts := range s.tracks {
		for id := range rollouts {
			s.dirty.tracks[track{id, host}] = true
		}
	}
	for host := range s.machines {
		s.dirty.machines[host] = true
	}
	return s.changed()
}
