package core

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// Channels are all channels of the newest fleet and all that ever had a rollout.
func (c *Core) Channels(ctx context.Context) (views []wire.ChannelView, err error) {
	err = c.view(ctx, func(s *state) {
		names := map[string]bool{}
		for name := range s.world.Channels {
			names[name] = true
		}
		if s.fleet != nil {
			for name := range s.fleet.Doc().Channels {
				names[name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			views = append(views, s.channelView(name))
		}
	})
	return views, err
}

// Channel is one channel; ok is false when there is none of that name.
func (c *Core) Channel(ctx context.Context, name string) (v wire.ChannelView, ok bool, err error) {
	all, err := c.Channels(ctx)
	i := slices.IndexFunc(all, func(v wire.ChannelView) bool { return v.Channel == name })
	if err != nil || i < 0 {
		return v, false, err
	}
	return all[i], true, nil
}

func (s *state) channelView(name string) wire.ChannelView {
	v := wire.ChannelView{Channel: name}
	if s.fleet != nil {
		v.FreshnessWindowMinutes = s.fleet.Doc().Channels[name].FreshnessWindow
		for _, h := range s.fleet.Doc().Hosts {
			if h.Channel == name {
				v.Hosts++
			}
		}
	}
	ch := s.world.Channels[name]
	if ch == nil {
		return v
	}
	v.Paused = flagView(ch.Paused)
	if r := s.world.Rollouts[ch.Newest]; r != nil {
		v.RolloutID, v.State, v.SignedAt, v.StaleAt = r.ID, string(r.State), r.SignedAt, staleAt(r)
		v.Converged = byState(r.Hosts)[string(lifecycle.Converged)]
		v.Why = s.rolloutWhy(r)
	}
	return v
}

func flagView(f *rollout.Flag) *wire.Flag {
	if f == nil {
		return nil
	}
	return &wire.Flag{Who: f.Who, Why: f.Why, At: f.At}
}

func staleAt(r *rollout.Rollout) time.Time {
	if w := r.Manifest.Window(); w > 0 {
		return r.SignedAt.Add(w)
	}
	return time.Time{}
}

func byState(hosts []rollout.HostRow) map[string]int {
	n := map[string]int{}
	for i := range hosts {
		n[string(hosts[i].State)]++
	}
	return n
}

// rolloutWhy says why a rollout is halted or held; "" when it is neither.
func (s *state) rolloutWhy(r *rollout.Rollout) string {
	switch {
	case r.State.Halted() && r.Halt != nil && len(r.Halt.Hosts) > 0:
		return "Halted: failed or lost are " + joined(r.Halt.Hosts)
	case r.State.Halted() && r.Halt != nil:
		return "Halted by " + r.Halt.Who + ": " + r.Halt.Why
	case !r.State.Unfinished():
		return ""
	case s.world.Recovery != nil:
		return "Recovering: " + s.world.Recovery.Why
	}
	if p := s.world.Channels[r.Channel].Paused; p != nil {
		return "Paused by " + p.Who + ": " + p.Why
	}
	return ""
}

// joined names a few and counts the rest.
func joined(names []string) string {
	const few = 5
	out := ""
	for i, n := range names {
		if i == few {
			return out + ", …"
		}
		if i > 0 {
			out += ", "
		}
		out += n
	}
	return out
}

// Rollouts are all rollouts, newest first.
func (c *Core) Rollouts(ctx context.Context) (views []wire.RolloutView, err error) {
	err = c.view(ctx, func(s *state) {
		for _, r := range s.rollouts() {
			views = append(views, s.rolloutView(r))
		}
	})
	return views, err
}

func (s *state) rolloutView(r *rollout.Rollout) wire.RolloutView {
	m := r.Manifest
	return wire.RolloutView{
		RolloutID: r.ID, DisplayName: m.DisplayName, Channel: r.Channel, ChannelRef: m.ChannelRef, Attempt: max(1, m.Attempt),
		State: string(r.State), Since: r.Since, OpenedAt: r.OpenedAt, Newest: s.world.Channels[r.Channel].Newest == r.ID,
		Wave: r.Wave, Waves: len(waves(r)), Hosts: len(r.Hosts), ByState: byState(r.Hosts),
		Paused: flagView(s.world.Channels[r.Channel].Paused), Recovered: flagView(s.world.Recovery), Why: s.rolloutWhy(r),
		PlanHash: r.PlanHash, FleetResolvedHash: m.FleetResolvedHash, SignedAt: r.SignedAt, StaleAt: staleAt(r),
	}
}

// waves are the numbers of the waves that have hosts, in order.
func waves(r *rollout.Rollout) []int {
	var all []int
	for i := range r.Hosts { // by wave
		if w := r.Hosts[i].Wave; len(all) == 0 || all[len(all)-1] != w {
			all = append(all, w)
		}
	}
	return all
}

// RolloutLifecycle is a rollout with its waves and its history; ok is false when
// there is no such rollout.
func (c *Core) RolloutLifecycle(ctx context.Context, id string) (v wire.RolloutLifecycle, ok bool, err error) {
	err = c.view(ctx, func(s *state) {
		r := s.world.Rollouts[id]
		if ok = r != nil; ok {
			v = wire.RolloutLifecycle{RolloutView: s.rolloutView(r), WaveList: waveViews(r)}
		}
	})
	if err != nil || !ok {
		return v, ok, err
	}
	opened := wire.RolloutStep{At: v.OpenedAt, Action: string(rollout.KindOpened)}
	history, err := c.history(ctx, id)
	v.Transitions = append([]wire.RolloutStep{opened}, history...)
	return v, true, err
}

func waveViews(r *rollout.Rollout) []wire.WaveView {
	var all []wire.WaveView
	for _, w := range waves(r) {
		var hosts []rollout.HostRow
		for i := range r.Hosts {
			if r.Hosts[i].Wave == w {
				hosts = append(hosts, r.Hosts[i])
			}
		}
		all = append(all, wire.WaveView{
			Index: w, SoakSecs: r.Manifest.Policy.SoakSecs(w), Hosts: len(hosts), ByState: byState(hosts),
			Done: w < r.Wave || r.State == rollout.Terminal,
		})
	}
	return all
}

// history is what was decided about a rollout, out of the log.
func (c *Core) history(ctx context.Context, id string) ([]wire.RolloutStep, error) {
	records, err := c.Store.Decisions(ctx, id)
	if err != nil {
		return nil, err
	}
	steps := make([]wire.RolloutStep, 0, len(records))
	for _, r := range records {
		step := wire.RolloutStep{At: r.At, Action: r.Decision.Kind, Host: r.Decision.Hostname}
		var a struct {
			Body struct {
				To   string `json:"to"`
				Who  string `json:"who"`
				Why  string `json:"why"`
				Gate string `json:"gate"`
			} `json:"body"`
		}
		if err := json.Unmarshal(r.Decision.Body, &a); err != nil {
			return nil, err
		}
		step.To, step.Who, step.Why = a.Body.To, a.Body.Who, a.Body.Why
		if a.Body.Gate != "" {
			step.Why = a.Body.Gate
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// RolloutHosts are the hosts of a rollout by wave, then name: those after a host,
// at most limit. ok is false when there is no such rollout.
func (c *Core) RolloutHosts(ctx context.Context, id, after string, limit int) (views []wire.RolloutHost, ok bool, err error) {
	err = c.view(ctx, func(s *state) {
		r := s.world.Rollouts[id]
		if ok = r != nil; !ok {
			return
		}
		first := 0
		if after != "" {
			first = 1 + slices.IndexFunc(r.Hosts, func(h rollout.HostRow) bool { return h.Hostname == after })
		}
		for i := first; i < len(r.Hosts) && len(views) < limit; i++ {
			h := &r.Hosts[i]
			v := wire.RolloutHost{
				Hostname: h.Hostname, Wave: h.Wave, Target: h.Target, Prior: h.Prior, State: h.State, Since: h.Since,
				Conditions: c.conditions(s, h.Hostname, r, h), Failure: failureView(h),
				Deferral: deferralView(r, h), Reject: c.rejectView(s, h), LastSeq: h.Seq, SwitchedAt: h.CompletedAt,
			}
			if h.Order != nil {
				v.DeliveredAt = h.Order.At
			}
			if h.Terminal() {
				v.EndedAt = h.Since
			}
			if h.State == lifecycle.Converged {
				v.SoakedSecs = h.Active - h.CompletedActive
			}
			views = append(views, v)
		}
	})
	return views, ok, err
}
