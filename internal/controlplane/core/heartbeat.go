package core

import (
	"context"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// heard notes that a host spoke. What it is held in is no fold of the log, so
// that a sign of life costs no transaction.
func (b *batch) heard(host string) *machine {
	m := b.state.machine(host)
	m.Seen, m.SeenAt = b.state.world.Ready, b.now
	if b.now.Sub(m.written) >= seenEvery {
		b.state.dirty.machines[host] = true
	}
	return m
}

// Heartbeat takes a host's sign of life and tells what is missing here. It never
// changes a rollout's state.
func (c *Core) Heartbeat(ctx context.Context, host string, r wire.HeartbeatRequest) (wire.HeartbeatResponse, error) {
	var answer wire.HeartbeatResponse
	err := c.submit(ctx, func(b *batch) {
		m := b.heard(host)
		m.take(b.state.world.Ready, r)
		answer = wire.HeartbeatResponse{
			ReceivedAt:        b.now,
			NextHeartbeatSecs: int(c.NextHeartbeat / time.Second),
			Replay:            b.replay(host, r.AckedSeqByRollout),
			BootstrapRollouts: b.state.numbers(host),
			Documents:         b.state.etags(host),
		}
		switch {
		case len(answer.Replay) > 0:
			b.recover("host " + host + " knows of events that are not stored here")
		case r.RolloutID != "" && !b.state.knows(r.RolloutID, host):
			b.recover("host " + host + " is in rollout " + r.RolloutID + ", which is not known here")
		}
		if _, h := b.state.newest(host); h != nil && (h.Order != nil || h.Lost != nil || h.Reject != nil || h.Skip != nil) {
			c.planDue = true
		}
	})
	return answer, err
}

// take merges a report into what was known: a field that was not sent is as
// before.
func (m *machine) take(ready time.Duration, r wire.HeartbeatRequest) {
	was := m.Report
	merge(&r, was)
	if eased(was, r) {
		m.Eased = ready
	}
	m.Report = r
	m.HeartbeatAt = ready
	m.Current, m.BootDefault, m.LastSeq = r.CurrentClosure, r.BootDefault, r.LastSeqByRollout
}

func merge(r *wire.HeartbeatRequest, was wire.HeartbeatRequest) {
	keep(&r.RolloutID, was.RolloutID)
	keep(&r.CurrentClosure, was.CurrentClosure)
	keep(&r.AgentVersion, was.AgentVersion)
	keep(&r.BootedClosure, was.BootedClosure)
	keep(&r.BootDefault, was.BootDefault)
	keep(&r.Phase, was.Phase)
	keep(&r.UptimeSecs, was.UptimeSecs)
	keep(&r.PendingReboot, was.PendingReboot)
	keep(&r.Drifted, was.Drifted)
	keep(&r.OutboxDepth, was.OutboxDepth)
	keep(&r.DeadLetters, was.DeadLetters)
	keep(&r.Clock, was.Clock)
	keep(&r.Disk, was.Disk)
	if r.LastSeqByRollout == nil {
		r.LastSeqByRollout = was.LastSeqByRollout
	}
	if r.WaitingOn == nil {
		r.WaitingOn = was.WaitingOn
	}
	if r.Probes == nil {
		r.Probes = was.Probes
	}
}

func keep[T comparable](field *T, was T) {
	var zero T
	if *field == zero {
		*field = was
	}
}

// eased tells whether what a host rejects orders for has ended: a hold, a clock
// in doubt, a full disk.
func eased(was, is wire.HeartbeatRequest) bool {
	for _, w := range []wire.WaitingOn{wire.WaitingOnHold, wire.WaitingOnClock, wire.WaitingOnDiskNix, wire.WaitingOnDiskBoot} {
		if slices.Contains(was.WaitingOn, w) && !slices.Contains(is.WaitingOn, w) {
			return true
		}
	}
	return false
}

// replay lists what the host has acknowledged events of that are not stored: a
// lost database, or an old backup. It is asked for every time until they are.
func (b *batch) replay(host string, acked map[string]int64) []wire.Replay {
	var missing []wire.Replay
	for id, seq := range acked {
		if _, pruned := b.state.world.Tombstones[id]; pruned {
			continue
		}
		if last := b.state.lastSeq(track{id, host}); seq > last {
			missing = append(missing, wire.Replay{RolloutID: id, FromSeq: last + 1})
		}
	}
	slices.SortFunc(missing, func(x, y wire.Replay) int { return strings.Compare(x.RolloutID, y.RolloutID) })
	return missing
}

// recover makes the database recovering, unless it is already.
func (b *batch) recover(why string) {
	if b.state.world.Recovery != nil {
		return
	}
	if err := b.decide(b.action(rollout.Recovering{Why: why})); err != nil {
		b.broken = err
		return
	}
	b.Log.Warn("recovering: nothing is dispatched until an operator ends it", "why", why)
	b.planDue = true
}

// knows tells whether anything was ever heard of a rollout, here or by the host.
func (s *state) knows(id, host string) bool {
	_, pruned := s.world.Tombstones[id]
	return pruned || s.world.Rollouts[id] != nil || s.manifests[id] != nil || s.known(track{id, host}) != nil
}

// numbers are the last events that are stored of a host: what one that lost its
// journal goes on from.
func (s *state) numbers(host string) []wire.BootstrapRollout {
	var all []wire.BootstrapRollout
	for id, r := range s.world.Rollouts {
		if h := r.Host(host); h != nil && h.Seq > 0 {
			all = append(all, wire.BootstrapRollout{RolloutID: id, LastEventSeq: h.Seq})
		}
	}
	for id, tr := range s.tracks[host] {
		if tr.Unmirrored > 0 {
			all = append(all, wire.BootstrapRollout{RolloutID: id, LastEventSeq: tr.Unmirrored})
		}
	}
	slices.SortFunc(all, func(x, y wire.BootstrapRollout) int { return strings.Compare(x.RolloutID, y.RolloutID) })
	return all
}

// etags are those of the documents that concern the host.
func (s *state) etags(host string) *wire.Documents {
	var d wire.Documents
	if served := s.served[fleetKey]; served != nil {
		d.Fleet = served.ETag
	}
	if r, h := s.newest(host); h != nil {
		d.Manifest, d.Rollout = s.served[manifestKey(r.ID)].ETag, r.ID
	}
	return &d
}

// Reject takes a host's refusal of an order.
func (c *Core) Reject(ctx context.Context, host string, r wire.Reject) error {
	var refused error
	err := c.submit(ctx, func(b *batch) {
		b.heard(host)
		refused = b.decide(b.action(rollout.Rejected{
			Rollout: r.RolloutID, Host: host, OrderID: r.OrderID, Reason: string(r.Reason), Detail: r.Detail,
			RetryAfter: min(max(time.Duration(r.RetryAfterSecs)*time.Second, minRetry), maxRetry),
		}))
		b.planDue = true
	})
	if err != nil {
		return err
	}
	return refused
}

// The bounds of a reject's retryAfter: a host that asks for less would be asked
// in a loop, one that asks for more would never be.
const (
	minRetry = 5 * time.Second
	maxRetry = 30 * time.Minute
)
