package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// Bounds of one batch.
const (
	batchEvents = 128
	batchBytes  = 1 << 20
)

// conflictPause is how long a rollout's events wait after a conflict. A machine is
// restored once; a control plane that tells of one conflict after the other must
// not fill the disk with the new chains that follow.
const conflictPause = time.Minute

// outbox sends the journal's events. Per rollout they go in order; a rollout that
// is stopped (no slot, a gap that cannot be filled) stops no other.
type outbox struct {
	a       *Agent
	stopped map[string]*stoppage
	again   time.Time // when the first of the events that collect left out may be sent
}

// stoppage is why a rollout's events wait.
type stoppage struct {
	since   time.Time // when it was stopped last
	until   time.Time
	backoff uplink.Backoff
}

// stoppageMemory is how long a stop is remembered when events were taken after it:
// a rollout that is stopped again and again is sent less often each time.
const stoppageMemory = time.Minute

// sendEvents sends what is in the outbox, and waits for more.
func (a *Agent) sendEvents(ctx context.Context) error {
	o := &outbox{a: a, stopped: map[string]*stoppage{}}
	var backoff uplink.Backoff
	for ctx.Err() == nil {
		more := a.reducer.changed.wait() // taken before looking
		batch, err := o.collect()
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			o.wait(ctx, more)
			continue
		}
		results, err := o.send(ctx, batch)
		results = concerning(batch, results)
		if err == nil && len(results) == 0 {
			err = errors.New("the verdicts are on other events than those that were sent")
		}
		if len(results) > 0 {
			crashpoint.Here("agent/events-answered", "the control plane has stored events; the journal has them as not sent")
			if err := a.reducer.submit(ctx, "verdicts on events", func(t *turn) error { return t.verdicts(batch, results) }); err != nil {
				a.pause(ctx, backoff.Next(err))
				continue
			}
			o.note(results)
		}
		if err != nil {
			a.uplinkTrouble("events", err)
			a.pause(ctx, backoff.Next(err))
			continue
		}
		backoff.Reset()
		a.uplinkWell("events")
	}
	return nil
}

// concerning leaves out results that are neither on one of the events nor stop a
// rollout of theirs.
func concerning(events []wire.Envelope, results []wire.BatchResult) []wire.BatchResult {
	sent, rollouts := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		sent[eventName(e.RolloutID, seqOf(e))] = true
		rollouts[e.RolloutID] = true
	}
	return slices.DeleteFunc(results, func(r wire.BatchResult) bool {
		return !sent[eventName(r.RolloutID, r.Seq)] && (r.Status.Final() || !rollouts[r.RolloutID])
	})
}

// wait returns when there may be something to send.
func (o *outbox) wait(ctx context.Context, more <-chan struct{}) {
	timer := time.NewTimer(time.Until(o.again))
	defer timer.Stop()
	select {
	case <-more:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// collect reads the next events of every rollout that is not stopped.
func (o *outbox) collect() ([]wire.Envelope, error) {
	var batch []wire.Envelope
	bytes := 0
	now := time.Now()
	o.again = now.Add(time.Hour)
	err := o.a.journal.View(func(tx *journal.Tx) error {
		for _, e := range o.a.reducer.view().rollouts {
			id := e.Host.Rollout
			if e.acked >= e.Host.Seq {
				continue
			}
			if s := o.stopped[id]; s != nil && now.Before(s.until) {
				if s.until.Before(o.again) {
					o.again = s.until
				}
				continue
			}
			for seq, raw := range tx.Events(id, e.acked+1) {
				if len(batch) > 0 && (len(batch) == batchEvents || bytes+len(raw) > batchBytes) {
					return nil
				}
				var envelope wire.Envelope
				if err := json.Unmarshal(raw, &envelope); err != nil {
					return fmt.Errorf("read event %d of %s: %w", seq, id, err)
				}
				batch = append(batch, envelope)
				bytes += len(raw)
			}
		}
		return nil
	})
	return batch, err
}

// send posts a batch, and event by event where the control plane takes no
// batches or refuses this one as a whole. It may return verdicts with an error.
func (o *outbox) send(ctx context.Context, batch []wire.Envelope) ([]wire.BatchResult, error) {
	results, err := o.a.uplink.Events(ctx, batch)
	var answer *wire.Error
	if !errors.As(err, &answer) {
		return results, err
	}
	switch answer.Status() {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented,
		http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return o.sendSingly(ctx, batch)
	}
	return nil, err
}

func (o *outbox) sendSingly(ctx context.Context, batch []wire.Envelope) ([]wire.BatchResult, error) {
	var results []wire.BatchResult
	stopped := map[string]bool{}
	for _, envelope := range batch {
		if stopped[envelope.RolloutID] {
			continue
		}
		result := wire.BatchResult{RolloutID: envelope.RolloutID, Seq: seqOf(envelope), Status: wire.StatusStored}
		err := o.a.uplink.Event(ctx, envelope)
		var answer *wire.Error
		switch {
		case err == nil:
		case !errors.As(err, &answer):
			return results, err
		default:
			status, known := verdictOf(answer)
			if !known {
				return results, err
			}
			result.Status, result.Error = status, answer
		}
		stopped[envelope.RolloutID] = !result.Status.Final()
		results = append(results, result)
	}
	return results, nil
}

// verdictOf is what the answer to a single event says about it.
func verdictOf(answer *wire.Error) (status wire.EventStatus, known bool) {
	switch {
	case answer.Slug == wire.SlugConflict:
		return wire.StatusConflict, true
	case answer.Status() == http.StatusConflict:
		return wire.StatusGap, true
	case answer.Slug == wire.SlugNoSlot:
		return wire.StatusRetry, true
	case answer.Status() == http.StatusUnprocessableEntity, answer.Status() == http.StatusRequestEntityTooLarge, answer.Status() == http.StatusBadRequest:
		return wire.StatusRefused, true
	}
	return "", false
}

// note stops rollouts whose events were not taken, for longer each time.
func (o *outbox) note(results []wire.BatchResult) {
	now := time.Now()
	for _, r := range results {
		s := o.stopped[r.RolloutID]
		if r.Status.Final() {
			if s != nil && now.Sub(s.since) > stoppageMemory {
				delete(o.stopped, r.RolloutID)
			}
			continue
		}
		first := s == nil
		if first {
			s = &stoppage{}
			o.stopped[r.RolloutID] = s
		}
		s.since = now
		switch {
		case r.Status == wire.StatusConflict:
			s.until = now.Add(conflictPause)
		case first && r.Status == wire.StatusGap:
			// The first time it is sent again from there at once.
		case !now.Before(s.until): // else it was set by an event before it
			s.until = now.Add(s.backoff.Next(asError(r.Error)))
		}
	}
}

// asError keeps a nil *wire.Error from becoming an error that is not nil.
func asError(e *wire.Error) error {
	if e == nil {
		return nil
	}
	return e
}

func seqOf(e wire.Envelope) int64 {
	var head struct {
		Seq int64 `json:"seq"`
	}
	_ = json.Unmarshal(e.Event, &head) // our own bytes
	return head.Seq
}

func eventName(rollout string, seq int64) string { return fmt.Sprintf("%s#%d", rollout, seq) }

// verdicts takes what the control plane did with events. What follows a stop in
// the same rollout was not looked at.
func (t *turn) verdicts(batch []wire.Envelope, results []wire.BatchResult) error {
	sent := map[string]wire.Envelope{}
	for _, envelope := range batch {
		sent[eventName(envelope.RolloutID, seqOf(envelope))] = envelope
	}
	stopped := map[string]bool{}
	for _, r := range results {
		envelope, ours := sent[eventName(r.RolloutID, r.Seq)]
		if !ours || t.next.find(r.RolloutID) == nil || stopped[r.RolloutID] {
			continue
		}
		stopped[r.RolloutID] = !r.Status.Final()
		switch r.Status {
		case wire.StatusGap, wire.StatusConflict:
			if r.Error == nil || r.Error.ExpectedSeq < 1 {
				t.r.log.Error("the control plane says that a number does not fit, and not which one would", "rollout", r.RolloutID, "seq", r.Seq)
				continue
			}
			if r.Status == wire.StatusGap {
				t.replay(r.RolloutID, r.Error.ExpectedSeq)
				continue
			}
			// What it has is under this number and perhaps under later ones.
			if r.Error.ExpectedSeq <= r.Seq || r.Error.ExpectedSeq > maxSeq {
				t.r.log.Error("the control plane tells of a conflict that cannot be", "rollout", r.RolloutID, "seq", r.Seq, "expected", r.Error.ExpectedSeq)
				continue
			}
			if err := t.beginNewChain(r.RolloutID, r.Error.ExpectedSeq); err != nil {
				return err
			}
		case wire.StatusRefused:
			if err := t.bury(envelope, r.Seq, r.Error); err != nil {
				return err
			}
			t.stored(r.RolloutID, r.Seq)
		default:
			if r.Status.Final() {
				t.stored(r.RolloutID, r.Seq)
			}
		}
	}
	t.trim()
	return nil
}

// stored notes that the control plane has a rollout's events up to seq.
func (t *turn) stored(rollout string, seq int64) {
	t.setAcked(rollout, max(seq, t.next.find(rollout).acked))
}

// replay has a rollout's events sent again, from a number on.
func (t *turn) replay(rollout string, from int64) {
	e := t.next.find(rollout)
	if e == nil || e.trimmed || from < 1 || from-1 > e.Host.Seq {
		t.r.log.Error("the control plane asks for events that this host does not have", "rollout", rollout, "from", from)
		return
	}
	t.setAcked(rollout, from-1)
}

func (t *turn) setAcked(rollout string, seq int64) {
	t.replaceEntry(rollout, func(e *entry) { e.acked = seq })
	t.writes = append(t.writes, func(tx *journal.Tx) error { return tx.SetAcked(rollout, seq) })
}

// bury puts a refused event among the dead letters. It has had its number.
func (t *turn) bury(envelope wire.Envelope, seq int64, why *wire.Error) error {
	raw, err := json.Marshal(envelope)
	if err != nil {
		return err
	}
	d := journal.DeadLetter{Rollout: envelope.RolloutID, Seq: seq, Why: "refused", At: t.now.UTC().Round(0), Envelope: raw}
	if why != nil {
		d.Why = why.Detail
	}
	t.r.log.Error("the control plane refused an event", "rollout", d.Rollout, "seq", d.Seq, "why", d.Why)
	t.replaceEntry(d.Rollout, func(e *entry) { e.dead++ })
	t.writes = append(t.writes, func(tx *journal.Tx) error { return tx.Bury(d) })
	return nil
}

// beginNewChain follows a conflict: the control plane has other events under our
// numbers, so this machine was restored from an older state. What was not sent
// is moved to the dead letters, numbers go on from the control plane's, and a new
// chain of records begins and says so.
func (t *turn) beginNewChain(rollout string, expected int64) error {
	e := t.next.find(rollout)
	first := e.acked + 1
	t.writes = append(t.writes, func(tx *journal.Tx) error {
		for seq, raw := range tx.Events(rollout, first) {
			d := journal.DeadLetter{Rollout: rollout, Seq: seq, Why: "other events have these numbers at the control plane", At: t.now.UTC().Round(0), Envelope: raw}
			if err := tx.Bury(d); err != nil {
				return err
			}
		}
		return tx.DropEvents(rollout, min(first, expected), 1<<62)
	})
	previous := t.next.self.Marks.ChainHead
	t.updateMarks(func(m *trust.Marks) { m.ChainHead = "" })
	dead := int(e.Host.Seq - e.acked)
	t.update(rollout, func(e *entry) { e.Host.Seq, e.dead = expected-1, e.dead+dead })
	t.setAcked(rollout, expected-1)
	err := t.event(rollout, lifecycle.Notice{
		Code:         lifecycle.NoticeJournalRegressed,
		Detail:       "the journal is older than what the control plane has of this rollout",
		PreviousHead: previous,
	})
	if err != nil || t.next.facts == nil {
		return err
	}
	return t.event(rollout, observed(*t.next.facts))
}

// eventSize is what an event takes in the outbox, about.
const eventSize = 1 << 10

// outboxFull tells whether only what decides about a rollout is committed, and
// tells the control plane once that this is so.
func (t *turn) outboxFull() (bool, error) {
	full := t.r.cfg.OutboxMax > 0 && int64(t.next.outboxDepth())*eventSize > t.r.cfg.OutboxMax
	if full == t.next.self.OutboxFull {
		return full, nil
	}
	t.updateSelf(func(s *journal.Self) { s.OutboxFull = full })
	if !full {
		return false, nil
	}
	return true, t.notice(lifecycle.Notice{Code: lifecycle.NoticeOutboxFull, Detail: "changes of probes are not kept until events can be sent again"})
}

// trim drops what the control plane has and will not ask for again: it may ask
// for the events of the newest two rollouts.
func (t *turn) trim() {
	for i, e := range t.next.rollouts {
		if i >= len(t.next.rollouts)-2 || e.trimmed || !e.Host.Terminal() || e.acked < e.Host.Seq {
			continue
		}
		id, last := e.Host.Rollout, e.Host.Seq
		t.replaceEntry(id, func(e *entry) { e.trimmed = true })
		t.writes = append(t.writes, func(tx *journal.Tx) error {
			if err := tx.DropEvents(id, 1, last); err != nil {
				return err
			}
			return tx.DropDocument(id)
		})
	}
}

// forget drops the oldest rollouts beyond what is kept, once they are stored.
func (t *turn) forget() {
	for len(t.next.rollouts) > keepRollouts {
		e := t.next.rollouts[0]
		if !e.Host.Terminal() || e.acked < e.Host.Seq {
			return
		}
		t.next.rollouts = t.next.rollouts[1:]
		t.writes = append(t.writes, func(tx *journal.Tx) error { return tx.Forget(e.Host.Rollout) })
	}
}
