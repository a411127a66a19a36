package fleet

import (
	"fmt"
	"slices"
	"time"
)

// Validate makes the checks of a release: all that can be known to be wrong
// before a host sees it. The error lists every finding, one a line, each under
// its host or field.
func (f *Fleet) Validate() error {
	found := &problems{}
	if f.SchemaVersion != SchemaVersion {
		found.add("schemaVersion", "is %d, this program writes %d", f.SchemaVersion, SchemaVersion)
	}
	for _, name := range sortedKeys(f.Hosts) {
		f.validateHost(name, found)
	}
	for _, name := range sortedKeys(f.Channels) {
		f.validateChannel(name, found)
	}
	for _, name := range sortedKeys(f.RolloutPolicies) {
		f.validatePolicy(name, found)
	}
	for _, channel := range sortedKeys(f.Waves) {
		f.validateWaves(channel, found)
	}
	f.validateEdges(found)
	f.validateChannelEdges(found)
	for i, b := range f.DisruptionBudgets {
		path := fmt.Sprintf("disruptionBudgets[%d]", i)
		b.validate(path, found)
		f.validateSelector(path+".selector", b.Selector, found)
	}
	return found.err()
}

func (f *Fleet) validateHost(name string, found *problems) {
	h, path := f.Hosts[name], "hosts."+name
	found.check(path, CheckHostname(name))
	if _, ok := f.Channels[h.Channel]; !ok {
		found.add(path+".channel", "there is no channel %q", h.Channel)
	}
	if h.System == "" {
		found.add(path+".system", "is empty")
	}
	if h.ClosureHash != nil {
		found.check(path+".closureHash", h.ClosureHash.Validate())
	}
	if h.Pubkey != nil {
		found.check(path+".pubkey", checkPubkey(*h.Pubkey))
	}
	if h.Pin != nil {
		found.check(path+".pin.commit", checkRef(h.Pin.Commit))
	}
}

func (f *Fleet) validateChannel(name string, found *problems) {
	c, path := f.Channels[name], "channels."+name
	found.check(path, checkChannelName(name))
	if _, ok := f.RolloutPolicies[c.RolloutPolicy]; !ok {
		found.add(path+".rolloutPolicy", "there is no rollout policy %q", c.RolloutPolicy)
	}
	found.within(path+".freshnessWindow", c.FreshnessWindow, 1, maxMinutes)
	found.within(path+".reconcileIntervalMinutes", c.ReconcileIntervalMinutes, 0, maxMinutes)
	found.within(path+".signingIntervalMinutes", c.SigningIntervalMinutes, 0, maxMinutes)
	checkComplianceMode(path+".compliance.mode", c.Compliance.Mode, found)
}

// checkComplianceMode takes the modes, and none: then the agent's flag decides.
func checkComplianceMode(path, mode string, found *problems) {
	found.oneOf(path, mode, "", ComplianceDisabled, CompliancePermissive, ComplianceEnforce)
}

func (f *Fleet) validatePolicy(name string, found *problems) {
	p, path := f.RolloutPolicies[name], "rolloutPolicies."+name
	p.validate(path, found)
	if p.SoakSecsByWave != nil {
		found.add(path+".soakSecsByWave", "is for manifests; give soakSecs in the waves")
	}
	for i, wave := range p.Waves {
		path := fmt.Sprintf("%s.waves[%d]", path, i)
		f.validateSelector(path+".selector", wave.Selector, found)
		validateSoak(path, wave.SoakMinutes, wave.SoakSecs, found)
	}
}

func (f *Fleet) validateWaves(channel string, found *problems) {
	path := "waves." + channel
	if _, ok := f.Channels[channel]; !ok {
		found.add(path, "there is no channel %q", channel)
	}
	for i, wave := range f.Waves[channel] {
		path := fmt.Sprintf("%s[%d]", path, i)
		f.validateHostNames(path+".hosts", wave.Hosts, found)
		validateSoak(path, wave.SoakMinutes, wave.SoakSecs, found)
	}
}

func validateSoak(path string, minutes int, secs *int, found *problems) {
	found.within(path+".soakMinutes", minutes, 0, maxMinutes)
	if secs != nil {
		found.within(path+".soakSecs", *secs, 0, maxSecs)
	}
}

func (f *Fleet) validateSelector(path string, s Selector, found *problems) {
	f.validateHostNames(path+".hosts", s.Hosts, found)
	if s.Channel != nil {
		if _, ok := f.Channels[*s.Channel]; !ok {
			found.add(path+".channel", "there is no channel %q", *s.Channel)
		}
	}
}

func (f *Fleet) validateHostNames(path string, names []string, found *problems) {
	for _, name := range names {
		if _, ok := f.Hosts[name]; !ok {
			found.add(path, "there is no host %q", name)
		}
	}
}

// validateEdges refuses what could only wait for ever: an edge between channels,
// one to a host of a later wave, and a circle.
func (f *Fleet) validateEdges(found *problems) {
	divided := map[string]waves{}
	for i, e := range f.Edges {
		path := fmt.Sprintf("edges[%d]", i)
		gates, gatesKnown := f.Hosts[e.Gates]
		gated, gatedKnown := f.Hosts[e.Gated]
		if !gatesKnown {
			found.add(path+".gates", "there is no host %q", e.Gates)
		}
		if !gatedKnown {
			found.add(path+".gated", "there is no host %q", e.Gated)
		}
		if !gatesKnown || !gatedKnown {
			continue
		}
		if gates.Channel != gated.Channel {
			found.add(path, "%s is in channel %s and %s in channel %s; order channels with channelEdges", e.Gates, gates.Channel, e.Gated, gated.Channel)
			continue
		}
		w, ok := divided[gates.Channel]
		if !ok {
			w = f.wavesOf(gates.Channel)
			divided[gates.Channel] = w
		}
		if first, then := w.of[e.Gates], w.of[e.Gated]; first > then {
			found.add(path, "%s in wave %d would wait for %s in the later wave %d", e.Gated, then, e.Gates, first)
		}
	}
	if way := cycle(f.Edges); way != "" {
		found.add("edges", "hosts wait for each other: %s", way)
	}
}

func (f *Fleet) validateChannelEdges(found *problems) {
	for i, e := range f.ChannelEdges {
		path := fmt.Sprintf("channelEdges[%d]", i)
		if _, ok := f.Channels[e.Gates]; !ok {
			found.add(path+".gates", "there is no channel %q", e.Gates)
		}
		if _, ok := f.Channels[e.Gated]; !ok {
			found.add(path+".gated", "there is no channel %q", e.Gated)
		}
	}
	if way := cycle(f.ChannelEdges); way != "" {
		found.add("channelEdges", "channels wait for each other: %s", way)
	}
}

// Warnings are what a release says and does not refuse: what holds, but perhaps
// was not meant. Of a valid fleet.
func (f *Fleet) Warnings() []string {
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	for _, channel := range sortedKeys(f.Channels) {
		w := f.wavesOf(channel)
		said = append(said, w.remarks...)
		if len(w.soakSecs) > 0 {
			for _, name := range w.unlisted {
				say("hosts.%s: no wave of channel %s lists it; it goes last, in wave %d, without soak", name, channel, len(w.soakSecs))
			}
		}
		if c := f.Channels[channel]; c.SigningIntervalMinutes > c.FreshnessWindow {
			say("channels.%s: documents are stale after %d minutes and signed again after %d", channel, c.FreshnessWindow, c.SigningIntervalMinutes)
		}
	}
	for _, name := range sortedKeys(f.RolloutPolicies) {
		if w := f.RolloutPolicies[name].RebootWindow; w != nil {
			if _, err := time.LoadLocation(w.TZ); err != nil {
				say("rolloutPolicies.%s.rebootWindow.tz: this machine does not know %q", name, w.TZ)
			}
		}
	}
	for i, e := range f.Edges {
		for _, name := range []string{e.Gates, e.Gated} {
			if f.Hosts[name].ClosureHash == nil {
				say("edges[%d]: host %s has no closure, so the edge holds nothing back", i, name)
			}
		}
	}
	for i, b := range f.DisruptionBudgets {
		if len(f.selected(b.Selector)) == 0 {
			say("disruptionBudgets[%d]: its selector matches no host", i)
		}
	}
	return said
}

// Validate tells whether a complete manifest can be acted upon. The error names
// the first finding's host or field.
func (m *Manifest) Validate() error {
	found := &problems{}
	_, _, _, err := ParseRolloutID(m.ID())
	found.check("channel, channelRef, attempt", err)
	found.within("attempt", m.Attempt, 0, maxSecs)
	found.within("freshnessWindowMinutes", m.FreshnessWindowMinutes, 0, maxMinutes)
	if !isHexSHA256(m.FleetResolvedHash) {
		found.add("fleetResolvedHash", "%.80q is not a SHA-256 in hex", m.FleetResolvedHash)
	}
	checkComplianceMode("complianceMode", m.ComplianceMode, found)
	m.HealthGate.validate("healthGate", found)
	if m.Policy == nil {
		found.add("policy", "is missing")
	} else {
		m.Policy.validate("policy", found)
	}
	for i, b := range m.DisruptionBudgets {
		path := fmt.Sprintf("disruptionBudgets[%d]", i)
		b.validate(path, found)
		if !slices.IsSorted(b.Hosts) {
			found.add(path+".hosts", "are not sorted")
		}
	}
	m.validateHostSet(found)
	if len(found.found) > 0 {
		return found.found[0]
	}
	return nil
}

func (m *Manifest) validateHostSet(found *problems) {
	for i, t := range m.HostSet {
		if i > 0 && t.Hostname <= m.HostSet[i-1].Hostname {
			found.add("hostSet", "host %.80q comes after %.80q; hosts are sorted by name, each once", t.Hostname, m.HostSet[i-1].Hostname)
		}
		found.check("hostSet", CheckHostname(t.Hostname))
		if err := t.TargetClosure.Validate(); err != nil {
			found.check("hostSet."+t.Hostname+".targetClosure", err)
		}
		if t.WaveIndex < 0 {
			found.add("hostSet."+t.Hostname+".waveIndex", "%d is not a wave", t.WaveIndex)
		}
	}
}

func isHexSHA256(s string) bool { return len(s) == 64 && checkRef(s) == nil }
