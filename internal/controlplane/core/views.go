package core

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/rollout"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// What operators read. Every view is made by the core between two batches, from
// the state that was last committed.

// unseenAfter is how many heartbeats may be missing before a host counts as unseen.
const unseenAfter = 3

// Hosts are the hosts that are declared or were heard of and are not forgotten,
// by name: those after a name, at most limit.
func (c *Core) Hosts(ctx context.Context, after string, limit int) (views []wire.HostView, err error) {
	err = c.view(ctx, func(s *state) {
		for _, host := range s.hosts() {
			if _, forgotten := s.world.Forgotten[host]; forgotten || host <= after {
				continue
			}
			if len(views) == limit {
				break
			}
			views = append(views, c.hostView(s, host))
		}
	})
	return views, err
}

// Host is one host, also a forgotten one; ok is false when nobody has heard of it.
func (c *Core) Host(ctx context.Context, host string) (v wire.HostView, ok bool, err error) {
	err = c.view(ctx, func(s *state) {
		if ok = s.machines[host] != nil || s.declared(host) != nil; ok {
			v = c.hostView(s, host)
		}
	})
	return v, ok, err
}

func (s *state) hosts() []string {
	names := map[string]bool{}
	if s.fleet != nil {
		for host := range s.fleet.Doc().Hosts {
			names[host] = true
		}
	}
	for host := range s.machines {
		names[host] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// declared is a host of the newest fleet; nil when it has none of that name.
func (s *state) declared(host string) *fleet.Host {
	if s.fleet == nil {
		return nil
	}
	h, ok := s.fleet.Doc().Hosts[host]
	if !ok {
		return nil
	}
	return &h
}

func (c *Core) hostView(s *state, host string) wire.HostView {
	v := wire.HostView{Hostname: host}
	declared := s.declared(host)
	if declared != nil {
		v.System, v.Channel, v.Tags = declared.System, declared.Channel, declared.Tags
	}
	if m := s.machines[host]; m != nil {
		report(&v, m)
	}
	r, h := s.newest(host)
	if h != nil {
		v.RolloutID, v.Wave, v.State, v.Since = r.ID, h.Wave, h.State, h.Since
		v.Target, v.Prior, v.LastSeq = h.Target, h.Prior, h.Seq
		v.Failure, v.Reject = failureView(h), c.rejectView(s, h)
		v.Deferral = deferralView(r, h)
		if v.Current == "" {
			v.Current, v.BootDefault, v.BootID = h.Current, h.BootDefault, h.BootID
		}
	}
	if cert := s.latest[host]; cert != nil {
		v.CertificateNotAfter = cert.NotAfter
	}
	v.Conditions = c.conditions(s, host, r, h)
	v.Why = why(v, h)
	if f, forgotten := s.world.Forgotten[host]; forgotten {
		v.Why = "It was forgotten by " + f.Who + ": " + f.Why
	}
	return v
}

func (c *Core) conditions(s *state, host string, r *rollout.Rollout, h *rollout.HostRow) []string {
	var all []string
	when := func(is bool, condition string) {
		if is {
			all = append(all, condition)
		}
	}
	m := s.machines[host]
	diverged, unverified := false, false
	for _, tr := range s.tracks[host] {
		diverged = diverged || tr.Conflict != "" || tr.Refused > 0
		unverified = unverified || tr.Unverified > 0
	}
	when(diverged, wire.ConditionDiverged)
	when(unverified, wire.ConditionUnverified)
	_, forgotten := s.world.Forgotten[host]
	when(forgotten, wire.ConditionForgotten)
	when(s.fleet != nil && s.declared(host) == nil, wire.ConditionUndeclared)
	when(m == nil || time.Since(m.SeenAt) > unseenAfter*c.NextHeartbeat, wire.ConditionUnseen)
	if m != nil {
		when(m.Report.PendingReboot != nil && *m.Report.PendingReboot, wire.ConditionReboot)
		when(m.Report.Clock != nil && slices.Contains(m.Report.WaitingOn, wire.WaitingOnClock), wire.ConditionClock)
		when(m.apart() > trust.Skew, wire.ConditionSkewed)
		when(m.Enrolment != nil, wire.ConditionEnrolment)
		when(m.Report.Drifted != nil && *m.Report.Drifted || h != nil && h.Drifted, wire.ConditionDrifted)
	}
	if h != nil {
		when(h.Lost != nil, wire.ConditionLost)
		when(h.Skip != nil, wire.ConditionSkipped)
		when(h.Unhealthy, wire.ConditionUnhealthy)
		when(s.quarantined(r.Channel, h.Target), wire.ConditionQuarantined)
	}
	if cert := s.latest[host]; cert != nil {
		when(time.Until(cert.NotAfter) < cert.NotAfter.Sub(cert.NotBefore)/10, wire.ConditionCertificate)
	}
	return all
}

func (s *state) quarantined(channel string, c fleet.Closure) bool {
	return slices.ContainsFunc(s.world.Quarantines, func(q rollout.Quarantine) bool { return q.Channel == channel && q.Closure == c })
}

// apart is by how much the host's clock and this one's differ, as the host said.
func (m *machine) apart() time.Duration {
	return (time.Duration(orZero(m.Report.Clock).OffsetMs) * time.Millisecond).Abs()
}

// report puts what the machine last said into the view.
func report(v *wire.HostView, m *machine) {
	r := m.Report
	v.Current, v.Booted, v.BootDefault, v.BootID = r.CurrentClosure, r.BootedClosure, r.BootDefault, r.BootID
	v.LastSeenAt, v.AgentVersion, v.Phase, v.WaitingOn, v.Probes = m.SeenAt, r.AgentVersion, r.Phase, r.WaitingOn, r.Probes
	v.UptimeSecs, v.OutboxDepth, v.DeadLetters = orZero(r.UptimeSecs), orZero(r.OutboxDepth), orZero(r.DeadLetters)
	v.ClockOffsetMs = orZero(r.Clock).OffsetMs
	v.NixFree, v.BootFree = orZero(r.Disk).NixFree, orZero(r.Disk).BootFree
	v.Enrolment = m.Enrolment
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func failureView(h *rollout.HostRow) *wire.FailureView {
	if h.Failure == nil {
		return nil
	}
	f := h.Failure
	return &wire.FailureView{Cause: f.Cause, Phase: f.Phase, ExitCode: f.ExitCode, Detail: f.Detail, At: f.At, RollbackOwed: h.RollbackOwed}
}

func (c *Core) rejectView(s *state, h *rollout.HostRow) *wire.RejectView {
	if h.Reject == nil {
		return nil
	}
	return &wire.RejectView{
		Reason: wire.RejectReason(h.Reject.Reason), Detail: h.Reject.Detail, At: h.Reject.At,
		RetryAt: time.Now().UTC().Add(h.Reject.Retry - s.world.Ready).Truncate(time.Second),
	}
}

func deferralView(r *rollout.Rollout, h *rollout.HostRow) *wire.Deferral {
	if h.Deferral == nil {
		return nil
	}
	return &wire.Deferral{Hostname: h.Hostname, RolloutID: r.ID, Gate: string(h.Deferral.Gate), Reason: h.Deferral.Detail}
}

// Deferrals are all hosts that a gate holds back, by rollout, wave and name.
func (c *Core) Deferrals(ctx context.Context) (views []wire.Deferral, err error) {
	err = c.view(ctx, func(s *state) {
		for _, r := range s.rollouts() {
			for i := range r.Hosts {
				if d := deferralView(r, &r.Hosts[i]); d != nil {
					views = append(views, *d)
				}
			}
		}
	})
	return views, err
}

// rollouts are all of them, newest first.
func (s *state) rollouts() []*rollout.Rollout {
	return slices.SortedFunc(maps.Values(s.world.Rollouts), func(a, b *rollout.Rollout) int { return cmp.Compare(b.Opening, a.Opening) })
}

// Quarantine is what channels do not roll out.
func (c *Core) Quarantine(ctx context.Context) (views []wire.QuarantineView, err error) {
	err = c.view(ctx, func(s *state) {
		for _, q := range s.world.Quarantines {
			v := wire.QuarantineView{Channel: q.Channel, Closure: q.Closure, RolloutID: q.Rollout, Hostname: q.Host, FirstSignedAt: q.FirstSignedAt}
			if h := s.row(track{q.Rollout, q.Host}); h != nil && h.Failure != nil {
				v.Cause, v.At = h.Failure.Cause, h.Failure.At
			}
			views = append(views, v)
		}
	})
	return views, err
}

// Recovery tells whether the database is recovering, and who has replayed.
func (c *Core) Recovery(ctx context.Context) (v wire.RecoveryView, err error) {
	err = c.view(ctx, func(s *state) {
		f := s.world.Recovery
		if f == nil {
			return
		}
		v = wire.RecoveryView{Recovering: true, Since: f.At, Why: f.Why}
		for _, host := range slices.Sorted(maps.Keys(s.machines)) {
			for _, id := range slices.Sorted(maps.Keys(s.machines[host].Report.AckedSeqByRollout)) {
				acked := s.machines[host].Report.AckedSeqByRollout[id]
				last := s.lastSeq(track{id, host})
				v.Hosts = append(v.Hosts, wire.RecoveryHost{Hostname: host, RolloutID: id, StoredSeq: last, AckedSeq: acked, Replayed: last >= acked})
			}
		}
	})
	return v, err
}
