package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/evidence"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// noSlotRetry is when a host asks again whose acknowledgement got no slot.
const noSlotRetry = 30 * time.Second

// arrival is an event whose signature has been looked at.
type arrival struct {
	track    track
	event    event
	envelope []byte // as received
	signing  store.Signing
	err      *wire.Error // it is not even stored
}

// Ingest takes events of one host, as raw envelopes in order per rollout, and
// returns one result each. Signatures are checked here, in the caller's
// goroutine, so that they take no time of the core's.
func (c *Core) Ingest(ctx context.Context, host string, envelopes []json.RawMessage) ([]wire.BatchResult, error) {
	docs := c.Documents()
	arrivals := make([]arrival, len(envelopes))
	for i, raw := range envelopes {
		arrivals[i] = docs.examine(host, raw)
		if arrivals[i].signing == store.SignatureBad {
			c.Metrics.SecurityAlerts.WithLabelValues("event-signature").Inc()
			c.Log.Warn("SECURITY: an event is not signed by the host's declared key", "host", host,
				"rollout", arrivals[i].track.rollout, "seq", arrivals[i].event.Seq)
		}
	}
	results := make([]wire.BatchResult, len(arrivals))
	err := c.submit(ctx, func(b *batch) {
		b.heard(host)
		stopped := map[string]bool{} // rollouts whose further events must wait
		for i, a := range arrivals {
			results[i] = b.receive(a, stopped)
		}
	})
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		c.Metrics.Events.WithLabelValues(kindLabel(arrivals[i].event), string(r.Status)).Inc()
	}
	return results, nil
}

// kindLabel keeps what strangers invent out of the metrics.
func kindLabel(e event) string {
	if e.Body == nil {
		return "other"
	}
	return e.kind
}

// examine reads an envelope and checks whose it is and who signed it.
func (d *Documents) examine(host string, raw json.RawMessage) arrival {
	var envelope wire.Envelope
	if err := json.Unmarshal(raw, &envelope); err != nil {
		return arrival{err: wire.Errorf(wire.SlugMalformedEvent, "not an envelope: %v", err)}
	}
	a := arrival{track: track{envelope.RolloutID, host}, envelope: raw}
	if envelope.Hostname != host {
		a.err = wire.Errorf(wire.SlugForbidden, "the envelope is of host %q, the certificate of %s", envelope.Hostname, host)
		return a
	}
	e, err := readEvent(envelope.Event)
	if err != nil {
		a.err = wire.Errorf(wire.SlugMalformedEvent, "%v", err)
		return a
	}
	a.event = e
	switch key := d.HostKey(host); {
	case key == nil:
		a.signing = store.SignatureNone
	default:
		a.signing = store.SignatureGood
		if _, err := evidence.Verify(envelope, key); err != nil {
			a.signing = store.SignatureBad
		}
	}
	return a
}

// receive decides about one event and logs it when it is to be stored. A stop
// concerns its own rollout alone.
func (b *batch) receive(a arrival, stopped map[string]bool) wire.BatchResult {
	result := wire.BatchResult{Seq: a.event.Seq, RolloutID: a.track.rollout}
	stop := func(status wire.EventStatus, err *wire.Error) wire.BatchResult {
		stopped[a.track.rollout] = true
		result.Status, result.Error = status, err
		return result
	}
	if a.err != nil {
		result.Status, result.Error = wire.StatusRefused, a.err
		return result
	}
	last := b.state.lastSeq(a.track)
	switch seq := a.event.Seq; {
	case stopped[a.track.rollout]:
		return stop(wire.StatusRetry, wire.Errorf(wire.SlugUnavailable, "an earlier event of this rollout has to be stored first"))
	case seq <= last:
		same, err := b.isRepeat(a)
		if err != nil {
			return stop(wire.StatusRetry, wire.Errorf(wire.SlugUnavailable, "%v", err))
		}
		if same {
			result.Status = wire.StatusRepeated
			return result
		}
		b.conflict(a, last)
		e := wire.Errorf(wire.SlugConflict, "another event is stored under number %d", seq)
		e.ExpectedSeq = last + 1
		return stop(wire.StatusConflict, e)
	case seq > last+1:
		e := wire.Errorf(wire.SlugGap, "event %d does not follow event %d", seq, last)
		e.ExpectedSeq = last + 1
		return stop(wire.StatusGap, e)
	}
	if ack, ok := a.event.Body.(lifecycle.DispatchAck); ok && a.signing != store.SignatureBad &&
		!rollout.MayAcknowledge(b.state.world, a.track.rollout, a.track.host, ack) {
		e := wire.Errorf(wire.SlugNoSlot, "a disruption budget has no room for %s at the moment", a.track.host)
		e.RetryAfter = noSlotRetry
		return stop(wire.StatusRetry, e)
	}
	out := b.store(a)
	result.Status = wire.EventStatus(out.verdict)
	if out.verdict != store.Stored {
		slug := wire.SlugRefused
		if a.signing == store.SignatureBad {
			slug = wire.SlugBadSignature
		}
		result.Error = wire.Errorf(slug, "%s", out.detail)
	}
	return result
}

// store folds an event and logs it with what it came to. It is folded here, and
// not by log, so that it is read and stepped once.
func (b *batch) store(a arrival) outcome {
	out := b.state.applyEvent(a.track, a.event, a.signing)
	b.append(store.Record{Event: &store.Event{
		Hostname: a.track.host, Rollout: a.track.rollout, Seq: a.event.Seq, Kind: a.event.kind,
		Verdict: out.verdict, Signing: a.signing, Detail: out.detail, Envelope: a.envelope,
	}})
	b.events[number{a.track, a.event.Seq}] = a.envelope
	b.planDue = true
	return out
}

// isRepeat tells whether the same record is stored under the number. A number
// whose event is not kept any more counts as repeated.
func (b *batch) isRepeat(a arrival) (bool, error) {
	stored, here := b.events[number{a.track, a.event.Seq}]
	if !here {
		e, ok, err := b.Store.Event(context.Background(), a.track.host, a.track.rollout, a.event.Seq)
		if err != nil || !ok {
			return err == nil, err
		}
		stored = e.Envelope
	}
	if bytes.Equal(stored, a.envelope) {
		return true, nil
	}
	return sameRecord(stored, a.envelope), nil
}

// sameRecord tells whether two envelopes hold the same record, however they are
// spaced.
func sameRecord(x, y []byte) bool {
	a, errA := canonicalRecord(x)
	b, errB := canonicalRecord(y)
	return errors.Join(errA, errB) == nil && bytes.Equal(a, b)
}

func canonicalRecord(raw []byte) ([]byte, error) {
	var e wire.Envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	return evidence.Of(e).Canonical()
}
