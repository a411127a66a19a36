package core_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/wire"
)

// slowStore is a store whose commits wait to be let through.
type slowStore struct {
	store.Store
	begun, through chan struct{}
}

func (s *slowStore) Commit(ctx context.Context, b store.Batch) error {
	s.begun <- struct{}{}
	<-s.through
	return s.Store.Commit(ctx, b)
}

// What was given up while it waited for the core is not done afterwards: whoever
// asked has gone, and an order would be handed to nobody.
func TestWhatIsGivenUpIsNotDoneLater(t *testing.T) {
	f := fleettest.New(t, 1)
	w := start(t, f)
	w.stop()
	st, err := store.OpenSqlite(t.Context(), w.file)
	w.ok(err)
	slow := &slowStore{Store: st, begun: make(chan struct{}), through: make(chan struct{})}
	w.useStore(slow)
	beat := func(ctx context.Context, host string) error {
		_, err := w.Heartbeat(ctx, host, wire.HeartbeatRequest{Hostname: host})
		return err
	}
	first := make(chan error, 1)
	go func() { first <- beat(t.Context(), "first") }()
	<-slow.begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := beat(ctx, "second"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a request that waits for a commit: %v", err)
	}
	if _, err := w.Poll(ctx, f.Hosts[0].Name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a poll that waits for a commit: %v", err)
	}
	stopped := make(chan struct{})
	go func() {
		for {
			select {
			case slow.through <- struct{}{}:
			case <-slow.begun:
			case <-stopped:
				return
			}
		}
	}()
	w.ok(<-first)
	if _, known, err := w.Host(t.Context(), "second"); known || err != nil {
		t.Errorf("the request that was given up: %v, %v", known, err)
	}
	if _, known, err := w.Host(t.Context(), f.Hosts[0].Name); known || err != nil {
		t.Errorf("the poll that was given up: %v, %v", known, err)
	}
	w.stop()
	close(stopped)
}
