package rollout

import "nixfleet/internal/fleet"

// release refreshes the rollouts whose manifests the newest release re-signed,
// and opens the ones that it adds.
func (p *planner) release() {
	rel := p.w.Release
	if rel == nil {
		return
	}
	var unknown []string
	for _, channel := range byName(rel.Manifests) {
		m := rel.Manifests[channel]
		if r := p.w.Rollouts[m.Doc.ID()]; r != nil && r.refreshedBy(m) {
			p.do(Refreshed{Rollout: r.ID, SignedAt: m.SignedAt, FleetHash: rel.FleetHash})
		}
		if !p.w.known(m.Doc.ID()) {
			unknown = append(unknown, channel)
		}
	}
	if len(unknown) > 0 {
		p.open(rel, unknown)
	}
}

// open opens what nothing holds back, all in one action.
func (p *planner) open(rel *Release, channels []string) {
	held := p.heldBack(rel)
	opened := Opened{FleetHash: rel.FleetHash}
	for _, channel := range channels {
		m := rel.Manifests[channel]
		if !held[channel] && !p.queued(channel, m) {
			opened.Rollouts = append(opened.Rollouts, NewRollout{
				ID: m.Doc.ID(), Channel: channel, PlanHash: m.PlanHash, Supersedes: p.w.unfinished(channel),
			})
		}
	}
	if len(opened.Rollouts) > 0 {
		p.do(opened)
	}
}

// heldBack are the channels that have hosts and no manifest, or one that no
// rollout can be made of, and those that wait for such a channel, directly or
// over others.
func (p *planner) heldBack(rel *Release) map[string]bool {
	held := map[string]bool{}
	for channel := range rel.Fleet.Channels {
		held[channel] = rel.reaches(channel)
	}
	for channel, m := range rel.Manifests {
		_, err := hostRows(m.Doc.ID(), m)
		held[channel] = err != nil
	}
	for more := true; more; {
		more = false
		for _, m := range rel.Manifests {
			for _, e := range m.Doc.ChannelEdges {
				if held[e.Gates] && !held[e.Gated] {
					held[e.Gated] = true
					more = true
				}
			}
		}
	}
	return held
}

// reaches tells whether the fleet has a host in the channel that something was
// built for.
func (r *Release) reaches(channel string) bool {
	if r.reached == nil {
		r.reached = map[string]bool{}
		for _, h := range r.Fleet.Hosts {
			if h.ClosureHash != nil {
				r.reached[h.Channel] = true
			}
		}
	}
	return r.reached[channel]
}

// queued tells whether the new manifest wants to wait for the channel's running
// rollout. One that is stale dispatches nothing more and is not waited for.
func (p *planner) queued(channel string, m Manifest) bool {
	running := p.w.Rollouts[p.w.unfinished(channel)]
	return running != nil && m.Doc.Policy.OnNewRelease == fleet.OnNewQueue && p.stale(running) == ""
}
