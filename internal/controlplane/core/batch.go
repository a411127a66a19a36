package core

import (
	"context"
	"errors"
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/crashpoint"
)

// batch is what one transaction will hold: the state is already changed by it.
type batch struct {
	*Core
	state   *state
	now     time.Time // as precise as the store keeps it, so that a rebuild sees the same
	records []store.Record
	// Envelopes of events in this batch, which the store does not have yet.
	events map[number][]byte
	effect []func() // run after the commit, before anybody is answered
	broken error    // a record did not fold: the batch must not be committed
}

// number names an event.
type number struct {
	track track
	seq   int64
}

func (c *Core) begin() *batch {
	return &batch{Core: c, state: c.state, now: time.Now().UTC().Truncate(time.Millisecond), events: map[number][]byte{}}
}

// after has f run when the batch is committed.
func (b *batch) after(f func()) { b.effect = append(b.effect, f) }

// log appends a record and folds it. A record that does not fold breaks the
// batch: it was checked before.
func (b *batch) log(r store.Record) {
	if err := b.try(r); err != nil && b.broken == nil {
		b.broken = err
	}
}

// try folds a record and appends it when it fits.
func (b *batch) try(r store.Record) error {
	r.At, r.LogID = b.now, b.logID+1
	if err := b.state.apply(&r); err != nil {
		return err
	}
	b.append(r)
	return nil
}

// append takes a record that has been folded.
func (b *batch) append(r store.Record) {
	b.logID++
	r.At, r.LogID = b.now, b.logID
	b.records = append(b.records, r)
}

// commit writes the batch. On an error the state is read again.
func (c *Core) commit(ctx context.Context, b *batch) error {
	err := b.broken
	if err == nil {
		err = c.write(ctx, b)
	}
	if err != nil {
		c.Log.Error("batch not stored", "records", len(b.records), "error", err)
		c.Metrics.CommitFailures.Inc()
		if lerr := c.load(ctx); lerr != nil {
			// The store is gone altogether. The state in memory may hold what is
			// not on disk; the next commit fails too and tries to read again.
			c.Log.Error("state not read", "error", lerr)
			c.state.stale = true
		}
		return errors.Join(ErrUnavailable, err)
	}
	for _, f := range b.effect {
		f()
	}
	return nil
}

func (c *Core) write(ctx context.Context, b *batch) error {
	if c.state.stale {
		return errors.New("the state could not be read")
	}
	rows, err := b.state.changed()
	if err != nil {
		return err
	}
	if len(b.records) == 0 && len(rows) == 0 {
		return nil
	}
	start := time.Now()
	if err := c.Store.Commit(ctx, store.Batch{Records: b.records, Rows: rows}); err != nil {
		return err
	}
	c.Metrics.Commit.Observe(time.Since(start).Seconds())
	c.Metrics.BatchRecords.Observe(float64(len(b.records)))
	if b.state.docsChanged {
		b.state.docsChanged = false
		crashpoint.Here("core/documents-stored", "new documents are stored; they are not served yet")
		c.docs.Store(b.state.documents())
	}
	return nil
}
