package lifecycle

import (
	"fmt"
	"time"

	"nixfleet/internal/fleet"
)

// New is a host that enters a rollout, in state Pending. The manifest is verified
// and complete (fleet.CompleteManifest); firstSignedAt is when the first accepted
// bytes of this rollout's manifest were signed, which a refresh does not change.
func New(hostname, rollout string, m *fleet.Manifest, planHash string, firstSignedAt time.Time) (Host, error) {
	target, ok := m.Target(hostname)
	if !ok {
		return Host{}, fmt.Errorf("rollout %s has no host %s", rollout, hostname)
	}
	if m.Policy == nil {
		return Host{}, fmt.Errorf("rollout %s has no policy: its manifest was not completed", rollout)
	}
	h := Host{
		Hostname:      hostname,
		Rollout:       rollout,
		Channel:       m.Channel,
		Attempt:       max(1, m.Attempt),
		PlanHash:      planHash,
		FirstSignedAt: firstSignedAt,
		Target:        target.TargetClosure,
		Wave:          target.WaveIndex,
		SoakSecs:      m.Policy.SoakSecs(target.WaveIndex),
		Policy:        *m.Policy,
		State:         Pending,
	}
	if h.Policy.HealthGate.SystemdFailedUnits == nil {
		h.Policy.HealthGate = m.HealthGate
	}
	return h, nil
}
