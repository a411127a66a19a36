package core_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/metrics"
	"nixfleet/internal/controlplane/store"
)

// brokenStore is a store whose disk is full when fail is set.
type brokenStore struct {
	store.Store
	fail atomic.Bool
}

func (s *brokenStore) Commit(ctx context.Context, b store.Batch) error {
	if s.fail.Load() {
		return errors.New("no space left on device")
	}
	return s.Store.Commit(ctx, b)
}

// useStore starts a core on a store.
func (w *world) useStore(st store.Store) {
	w.t.Helper()
	w.store = st
	var err error
	w.Core, err = core.New(w.t.Context(), core.Options{
		Store: st, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: metrics.New(), NextHeartbeat: time.Minute,
	})
	w.ok(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
		if err := st.Close(); err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}
