package lifecycle

import (
	"cmp"
	"time"

	"nixfleet/internal/fleet"
)

// Quarantine keeps a channel's hosts away from a closure that a host had to give
// up for a fault of the closure itself.
type Quarantine struct {
	Channel       string        `json:"channel"`
	Closure       fleet.Closure `json:"closure"`
	Rollout       string        `json:"rollout"`
	FirstSignedAt time.Time     `json:"firstSignedAt"` // of that rollout's manifest
}

// Quarantines tells whether the host's outcome quarantines its target in its
// channel. It does so also when a newer rollout has taken over since, and never
// where nothing else ran before.
func Quarantines(h Host) bool {
	ran := cmp.Or(h.Prior, h.Current)
	if h.Failure == nil || ran == h.Target {
		return false
	}
	switch h.Failure.Cause {
	case CauseProbes, CauseSwitch:
		return true
	}
	return h.Failure.BadSignature
}

// QuarantineOf is the quarantine that an outcome for which Quarantines holds
// leads to.
func QuarantineOf(h Host) Quarantine {
	return Quarantine{Channel: h.Channel, Closure: h.Target, Rollout: h.Rollout, FirstSignedAt: h.FirstSignedAt}
}

// Blocks tells whether the quarantine keeps the host from its target. Free of it
// is another closure, and a rollout with a further attempt that was first signed
// later: somebody has decided to try again.
func (q Quarantine) Blocks(h Host) bool {
	if q.Channel != h.Channel || q.Closure != h.Target {
		return false
	}
	return h.Attempt <= 1 || !h.FirstSignedAt.After(q.FirstSignedAt)
}
