package rollout

import (
	"fmt"
	"time"
)

// clockTolerance is how much older than its window a document may be.
const clockTolerance = 60 * time.Second

// gateFreshness blocks hosts that would refuse the manifest as stale.
func gateFreshness(c *candidate) string { return c.stale }

// stale is since when nobody takes the rollout's manifest any more, or "".
func (p *planner) stale(r *Rollout) string {
	window := r.Manifest.Window()
	if window == 0 && p.w.Release != nil {
		window = p.w.Release.Fleet.Channels[r.Channel].Window()
	}
	if p.now.Sub(r.SignedAt) <= window+clockTolerance {
		return ""
	}
	return fmt.Sprintf("signed at %s, fresh for %s", r.SignedAt.UTC().Format(time.RFC3339), window)
}
