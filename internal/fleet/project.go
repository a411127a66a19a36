package fleet

import (
	"cmp"
	"fmt"
	"slices"
)

// Release is what one run of the release tool adds to the fleet.
type Release struct {
	FleetHash string         // hex SHA-256 of the canonical fleet document
	Ref       string         // hex; of all channels
	Attempts  map[string]int // by channel; absent means 1
	Meta      Meta           // of every manifest
}

// Project freezes the fleet into one manifest for each channel that has hosts
// with a closure, in the order of the channels' names. The fleet must be valid;
// what else a person should see is in Warnings.
func Project(f *Fleet, r Release) ([]Manifest, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	var manifests []Manifest
	for _, channel := range sortedKeys(f.Channels) {
		m := f.project(channel, r)
		if len(m.HostSet) == 0 {
			continue
		}
		if err := m.Validate(); err != nil {
			return nil, fmt.Errorf("channel %s: %w", channel, err)
		}
		manifests = append(manifests, m)
	}
	return manifests, nil
}

func (f *Fleet) project(channel string, r Release) Manifest {
	c := f.Channels[channel]
	m := Manifest{
		SchemaVersion:        SchemaVersion,
		Channel:              channel,
		ChannelRef:           r.Ref,
		FleetResolvedHash:    r.FleetHash,
		HostSet:              f.targets(channel),
		HealthGate:           f.RolloutPolicies[c.RolloutPolicy].HealthGate,
		ComplianceFrameworks: append([]string{}, c.Compliance.Frameworks...),
		Attempt:              max(1, r.Attempts[channel]),
		Meta:                 r.Meta,
	}
	m.DisplayName = RolloutID(channel, r.Ref[:min(8, len(r.Ref))], m.Attempt)
	m.DisruptionBudgets = f.budgetsOf(&m)
	f.addPlan(&m)
	return m
}

// CompleteManifest gives the manifest of an older producer, which has no policy,
// what the fleet document that it was published with says. A manifest with a
// policy is complete.
func CompleteManifest(m *Manifest, f *Fleet) error {
	if m.Policy != nil {
		return nil
	}
	c, ok := f.Channels[m.Channel]
	if !ok {
		return fmt.Errorf("the fleet document has no channel %.80q", m.Channel)
	}
	if _, ok := f.RolloutPolicies[c.RolloutPolicy]; !ok {
		return fmt.Errorf("the fleet document has no rollout policy %.80q, which channel %s follows", c.RolloutPolicy, m.Channel)
	}
	f.addPlan(m)
	return nil
}

// addPlan adds what decides about the rollout beside its hosts and budgets, where
// the manifest does not say it itself.
func (f *Fleet) addPlan(m *Manifest) {
	c := f.Channels[m.Channel]
	policy := f.RolloutPolicies[c.RolloutPolicy].Policy
	policy.SoakSecsByWave = f.wavesOf(m.Channel).soakSecs
	policy.HealthGate = m.HealthGate
	m.Policy = &policy
	m.ComplianceMode = cmp.Or(m.ComplianceMode, c.Compliance.Mode)
	m.FreshnessWindowMinutes = cmp.Or(m.FreshnessWindowMinutes, c.FreshnessWindow)
	if m.HostKeys == nil {
		m.HostKeys = f.hostKeys(m.HostSet)
	}
	if m.Edges == nil {
		m.Edges = slices.DeleteFunc(slices.Clone(f.Edges), func(e Edge) bool {
			return !m.has(e.Gated) || !m.has(e.Gates)
		})
	}
	if m.ChannelEdges == nil {
		m.ChannelEdges = slices.DeleteFunc(slices.Clone(f.ChannelEdges), func(e Edge) bool {
			return e.Gated != m.Channel
		})
	}
}

func (m *Manifest) has(host string) bool {
	_, found := m.Target(host)
	return found
}

func (f *Fleet) hostKeys(set []Target) map[string]string {
	keys := map[string]string{}
	for _, t := range set {
		if key := f.Hosts[t.Hostname].Pubkey; key != nil {
			keys[t.Hostname] = *key
		}
	}
	return keys
}

// targets are the channel's hosts that have a closure, sorted by name.
func (f *Fleet) targets(channel string) []Target {
	waves := f.wavesOf(channel)
	var set []Target
	for _, name := range f.hostsOf(channel) {
		if closure := f.Hosts[name].ClosureHash; closure != nil {
			set = append(set, Target{Hostname: name, WaveIndex: waves.of[name], TargetClosure: *closure})
		}
	}
	return set
}

// budgetsOf are the budgets that name a host of the manifest. Their lists are of
// the whole fleet: a budget holds over all channels.
func (f *Fleet) budgetsOf(m *Manifest) []Budget {
	budgets := []Budget{}
	for _, b := range f.DisruptionBudgets {
		b.Hosts = f.selected(b.Selector)
		if slices.ContainsFunc(b.Hosts, m.has) {
			budgets = append(budgets, b)
		}
	}
	return budgets
}
