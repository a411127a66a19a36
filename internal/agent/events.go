package agent

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/evidence"
	"nixfleet/internal/wire"
)

// Of what is read from the journal at once: an open transaction would keep it from
// growing, and with it the reducer from its work.
const (
	eventBatch      = 256
	eventBatchBytes = 1 << 20
)

// eventPatience is how long a client may leave what it asked for unread.
const eventPatience = 30 * time.Second

// serveEvents writes the committed events that the journal holds, a signed record
// in each line, the oldest first. With follow=1 those that are committed later
// come as they come, until the client goes.
func (a *Agent) serveEvents(w http.ResponseWriter, r *http.Request) {
	follow := r.URL.Query().Get("follow")
	if follow != "" && follow != "0" && follow != "1" {
		http.Error(w, fmt.Sprintf("follow: %q is not allowed: want 0 or 1", follow), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	client := http.NewResponseController(w)
	given := follower{next: map[string]int64{}}
	for {
		changed := a.reducer.changed.wait() // taken before looking
		lines, err := given.more(a.journal, a.reducer.view().rollouts)
		if err != nil {
			a.log.Error("the journal's events cannot be read", "err", err)
			panic(http.ErrAbortHandler) // so that the client takes it for no end
		}
		if client.SetWriteDeadline(time.Now().Add(eventPatience)) != nil {
			return
		}
		for _, line := range lines {
			if _, err := w.Write(append(line, '\n')); err != nil {
				return
			}
		}
		if client.Flush() != nil {
			return
		}
		if len(lines) > 0 {
			continue // there may be more
		}
		if follow != "1" {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// follower knows which events were given.
type follower struct {
	next map[string]int64 // numbers, by rollout
	head string           // hash of the last record
}

// unread is the oldest event of a rollout that was not given yet.
type unread struct {
	seq     int64
	raw     []byte // nil: there is none
	record  wire.Envelope
	advance func() (int64, []byte, bool)
}

// more gives the next events, as many as a batch holds. The chain of the records
// tells their order; where it has a gap, because a rollout's were dropped, the
// time of recording does.
func (f *follower) more(j *journal.Journal, rollouts []*entry) (lines [][]byte, err error) {
	err = j.View(func(tx *journal.Tx) error {
		heads := map[string]*unread{}
		for _, e := range rollouts {
			advance, stop := iter.Pull2(tx.Events(e.Host.Rollout, f.next[e.Host.Rollout]))
			defer stop()
			head := &unread{advance: advance}
			if err := head.step(); err != nil {
				return err
			}
			heads[e.Host.Rollout] = head
		}
		for bytes := 0; len(lines) < eventBatch && bytes < eventBatchBytes; {
			var first *unread
			for _, e := range rollouts {
				h := heads[e.Host.Rollout]
				switch {
				case h.raw == nil:
				case h.record.Prev == f.head, first == nil, first.record.Prev != f.head && h.record.RecordedAt < first.record.RecordedAt:
					first = h
				}
			}
			if first == nil {
				return nil
			}
			lines = append(lines, slices.Clone(first.raw))
			bytes += len(first.raw)
			f.next[first.record.RolloutID] = first.seq + 1
			if f.head, err = evidence.Hash(first.record); err != nil {
				return err
			}
			if err := first.step(); err != nil {
				return err
			}
		}
		return nil
	})
	return lines, err
}

// step goes to the rollout's next event, or to none.
func (u *unread) step() error {
	seq, raw, ok := u.advance()
	if !ok {
		u.raw = nil
		return nil
	}
	// A record of its own: what the last one refers to must not change.
	var record wire.Envelope
	if err := json.Unmarshal(raw, &record); err != nil {
		return fmt.Errorf("event %d in the journal: %w", seq, err)
	}
	u.seq, u.raw, u.record = seq, raw, record
	return nil
}
