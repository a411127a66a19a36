package agent

import (
	"context"
	"math/rand/v2"
	"reflect"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// maxSilence is how long a control plane can ask a host not to report. One that
// was broken into must not have silenced the fleet for longer than that.
const maxSilence = time.Hour

// sayAgain is how many heartbeats may leave out what has not changed.
const sayAgain = 10

// beat reports that the host lives: at once, and then as often as the control
// plane wants. Its answers say what the control plane misses.
func (a *Agent) beat(ctx context.Context) error {
	var backoff uplink.Backoff
	var said wire.HeartbeatRequest
	for n := 0; ctx.Err() == nil; {
		full := a.heartbeat(ctx)
		request := full
		if n%sayAgain != 0 {
			request = news(full, said)
		}
		answer, err := a.uplink.Heartbeat(ctx, request)
		if err != nil {
			a.uplinkTrouble("heartbeat", err)
			n = 0 // whoever answers next may know nothing
			a.pause(ctx, min(backoff.Next(err), a.cfg.PollInterval))
			continue
		}
		backoff.Reset()
		a.uplinkWell("heartbeat")
		a.watchSkew()
		said = full
		n++
		if err := a.heard(ctx, answer); err != nil {
			return err
		}
		if answer.Documents == nil {
			answer.Documents = &wire.Documents{}
		}
		replace(a.served, *answer.Documents)
		if a.cfg.Prefetch && answer.Documents.Rollout != "" {
			replace(a.ahead, answer.Documents.Rollout)
		}
		every := a.cfg.PollInterval
		if answer.NextHeartbeatSecs > 0 {
			every = time.Duration(min(answer.NextHeartbeatSecs, int(maxSilence/time.Second))) * time.Second
		}
		a.pause(ctx, time.Duration((0.9+0.2*rand.Float64())*float64(every)))
	}
	return nil
}

// heartbeat is all that the host says about itself.
func (a *Agent) heartbeat(ctx context.Context) wire.HeartbeatRequest {
	s := a.reducer.view()
	status := a.status(s)
	uptime := int64(time.Since(a.started) / time.Second)
	depth, dead := s.outboxDepth(), s.deadLetters()
	r := wire.HeartbeatRequest{
		Hostname:          a.cfg.MachineID,
		At:                time.Now().UTC().Truncate(time.Second),
		AckedSeqByRollout: map[string]int64{},
		LastSeqByRollout:  map[string]int64{},
		AgentVersion:      a.cfg.Version,
		UptimeSecs:        &uptime,
		Phase:             status.State,
		WaitingOn:         status.waitingOn(),
		OutboxDepth:       &depth,
		DeadLetters:       &dead,
		Clock:             &wire.Clock{Synchronized: status.ClockSynchronised, OffsetMs: status.ClockOffsetMs},
		Probes:            map[string]lifecycle.Status{},
	}
	for _, e := range s.rollouts[max(0, len(s.rollouts)-2):] {
		r.AckedSeqByRollout[e.Host.Rollout] = e.acked
		r.LastSeqByRollout[e.Host.Rollout] = e.Host.Seq
	}
	if e := s.current(); e != nil {
		pending := e.Host.State == lifecycle.Deferred
		r.RolloutID = e.Host.Rollout
		r.PendingReboot, r.Drifted = &pending, &e.Host.Drifted
		for _, p := range e.Host.Probes {
			r.Probes[p.Name] = p.Status
		}
	}
	if f := s.facts; f != nil {
		r.CurrentClosure, r.BootID, r.BootedClosure, r.BootDefault = f.Current, f.BootID, f.Booted, f.BootDefault
	}
	if space, err := a.machine.Space(ctx); err == nil {
		r.Disk = disk(space)
	}
	return r
}

// disk is free space to the nearest 64 MiB: a log file that grows is no news.
func disk(s host.Space) *wire.Disk {
	const grain = 64 << 20
	return &wire.Disk{NixFree: int64(s.Store / grain * grain), BootFree: int64(s.Boot / grain * grain)}
}

// news leaves out of a heartbeat what was said before.
func news(full, said wire.HeartbeatRequest) wire.HeartbeatRequest {
	r := wire.HeartbeatRequest{
		Hostname: full.Hostname, RolloutID: full.RolloutID, CurrentClosure: full.CurrentClosure, At: full.At,
		BootID: full.BootID, AckedSeqByRollout: full.AckedSeqByRollout,
	}
	now, before, out := reflect.ValueOf(full), reflect.ValueOf(said), reflect.ValueOf(&r).Elem()
	for i := range now.NumField() {
		if name := now.Type().Field(i).Name; name == "UptimeSecs" {
			continue // always new, and no news
		}
		if out.Field(i).IsZero() && !reflect.DeepEqual(now.Field(i).Interface(), before.Field(i).Interface()) {
			out.Field(i).Set(now.Field(i))
		}
	}
	return r
}

// heard takes what the control plane's answer says about events.
func (a *Agent) heard(ctx context.Context, answer wire.HeartbeatResponse) error {
	numbered := a.reducer.view().self.Numbered
	if numbered && len(answer.Replay) == 0 {
		return nil
	}
	return a.reducer.submit(ctx, "heartbeat's answer", func(t *turn) error {
		if !t.next.self.Numbered {
			if err := t.numbered(answer.BootstrapRollouts); err != nil {
				return err
			}
		}
		for _, r := range answer.Replay {
			t.replay(r.RolloutID, r.FromSeq)
		}
		return nil
	})
}

// maxSeq is the highest number that is believed of a control plane. Above it there
// is room for more events than a host will ever have: a number that does not fit
// into a document could not be signed, and the rollout would stand still.
const maxSeq = 1 << 40

// numbered takes which numbers this host's events have had, and nothing else: a
// control plane has no say in what state the host is in.
func (t *turn) numbered(known []wire.BootstrapRollout) error {
	last := map[string]int64{}
	for _, b := range known {
		switch {
		case b.LastEventSeq > maxSeq || !isRolloutID(b.RolloutID):
			t.r.log.Error("the control plane tells of events that no host can have had", "rollout", b.RolloutID, "seq", b.LastEventSeq)
		case b.LastEventSeq > 0:
			last[b.RolloutID] = b.LastEventSeq
		}
	}
	self := t.next.self
	t.updateSelf(func(s *journal.Self) { s.Numbered, s.LastSeqs = true, last })
	if len(last) == 0 || len(t.next.rollouts) > 0 || len(self.Notices) > 0 || !self.Marks.Manifest.SignedAt.IsZero() {
		return nil
	}
	// Nothing is left here of a host that the control plane knows.
	for _, n := range []lifecycle.Notice{
		{Code: lifecycle.NoticeChainReset, Detail: "a new chain of records begins"},
		{Code: lifecycle.NoticeJournalLost, Detail: "there was no journal"},
		{Code: lifecycle.NoticeTrustReset, Detail: "the marks of accepted documents were lost as well"},
	} {
		if err := t.notice(n); err != nil {
			return err
		}
	}
	return nil
}

// refresh fetches newer bytes of the plan that is followed, when the control plane
// says that there are some, or does not say.
func (a *Agent) refresh(ctx context.Context) error {
	checked := "" // ETag of the manifest that was looked at last
	for {
		var served wire.Documents
		select {
		case served = <-a.served:
		case <-ctx.Done():
			return nil
		}
		e := a.reducer.view().current()
		if e == nil || e.trimmed || served.Manifest != "" && served.Manifest == checked {
			continue
		}
		if served.Manifest != "" {
			checked = served.Manifest
			if held, err := a.document(e.Host.Rollout); err != nil || held.ETag == checked {
				continue
			}
			// All hosts of a channel hear of it within one heartbeat.
			if !sleep(ctx, rand.N(a.cfg.PollInterval)) {
				return nil
			}
		}
		if err := a.refreshPlan(ctx, e.Host.Rollout); err != nil && ctx.Err() == nil {
			a.log.Warn("the manifest could not be refreshed", "rollout", e.Host.Rollout, "err", err)
		}
	}
}

// current is the rollout that a person would name: the one that is live, else the
// one that comes next, else the last.
func (s *state) current() *entry {
	if live := s.live(); live != nil && live.Host.Live() {
		return live
	}
	if next := s.next(); next != nil {
		return next
	}
	return s.newest()
}
