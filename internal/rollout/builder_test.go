package rollout_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/rollout"
)

// builder makes releases.
type builder struct {
	ref          string
	attempt      int
	rel          *rollout.Release
	policies     map[string]fleet.Policy
	hostSets     map[string][]fleet.Target
	budgets      []fleet.Budget
	edges        []fleet.Edge
	channelEdges []fleet.Edge
	missing      []string // channels without a manifest
}

func newBuilder(ref string, attempt int, signedAt time.Time) *builder {
	return &builder{
		ref: ref, attempt: attempt,
		rel: &rollout.Release{
			Fleet:     &fleet.Fleet{Hosts: map[string]fleet.Host{}, Channels: map[string]fleet.Channel{}},
			FleetHash: fmt.Sprintf("fleet-%s.%d-%d", ref, attempt, signedAt.Unix()),
			SignedAt:  signedAt,
			Manifests: map[string]rollout.Manifest{},
		},
		policies: map[string]fleet.Policy{},
		hostSets: map[string][]fleet.Target{},
	}
}

// channel declares a channel whose documents stay fresh for 30 days.
func (b *builder) channel(name string, set func(*fleet.Policy)) {
	p := fleet.DefaultPolicy()
	set(&p)
	b.policies[name] = p
	b.rel.Fleet.Channels[name] = fleet.Channel{FreshnessWindow: 30 * 24 * 60}
}

// host declares a host; closure none builds nothing for it.
func (b *builder) host(name, channel string, wave int, closure fleet.Closure) {
	h := fleet.Host{Channel: channel}
	if closure != "none" {
		h.ClosureHash = &closure
		b.hostSets[channel] = append(b.hostSets[channel], fleet.Target{Hostname: name, WaveIndex: wave, TargetClosure: closure})
	}
	b.rel.Fleet.Hosts[name] = h
}

func (b *builder) build() *rollout.Release {
	for channel, hosts := range b.hostSets {
		if slices.Contains(b.missing, channel) {
			continue
		}
		slices.SortFunc(hosts, func(x, y fleet.Target) int { return cmp.Compare(x.Hostname, y.Hostname) })
		p := b.policies[channel]
		m := &fleet.Manifest{
			Channel: channel, ChannelRef: b.ref, Attempt: b.attempt, FleetResolvedHash: b.rel.FleetHash, HostSet: hosts,
			Policy: &p, DisruptionBudgets: b.budgets, Edges: b.edges, ChannelEdges: b.channelEdges,
		}
		b.rel.Manifests[channel] = rollout.Manifest{Doc: m, PlanHash: "plan-" + m.ID(), SignedAt: b.rel.SignedAt}
	}
	return b.rel
}
