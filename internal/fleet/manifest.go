package fleet

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// ID is the manifest's rollout id.
func (m *Manifest) ID() string { return RolloutID(m.Channel, m.ChannelRef, m.Attempt) }

// FillDefaults puts in what absent fields mean: the first attempt, and for a
// policy without a health gate the manifest's own.
func (m *Manifest) FillDefaults() {
	m.Attempt = cmp.Or(m.Attempt, 1)
	if m.Policy != nil && m.Policy.HealthGate.SystemdFailedUnits == nil {
		m.Policy.HealthGate = m.HealthGate
	}
}

// Target is what the host is to run. It searches by halves, which a valid
// manifest's order allows.
func (m *Manifest) Target(host string) (Target, bool) {
	i, found := slices.BinarySearchFunc(m.HostSet, host, func(t Target, host string) int {
		return cmp.Compare(t.Hostname, host)
	})
	if !found {
		return Target{}, false
	}
	return m.HostSet[i], true
}

// Window is how old the manifest may be when it is accepted; 0 when it does not
// say, and its channel's window holds.
func (m *Manifest) Window() time.Duration { return minutes(m.FreshnessWindowMinutes) }

// Window is how old manifests of the channel may be when they are accepted.
func (c Channel) Window() time.Duration { return minutes(c.FreshnessWindow) }

// Window is how old the fleet document may be: as old as the most patient of its
// channels allows.
func (f *Fleet) Window() time.Duration {
	var widest time.Duration
	for _, c := range f.Channels {
		widest = max(widest, c.Window())
	}
	return widest
}

// minutes is n minutes, or the longest duration there is.
func minutes(n int) time.Duration {
	const most = int(math.MaxInt64 / int64(time.Minute))
	return time.Duration(max(0, min(n, most))) * time.Minute
}
