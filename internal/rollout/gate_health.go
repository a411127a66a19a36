package rollout

import (
	"fmt"
	"time"

	"nixfleet/internal/lifecycle"
)

// lately is how long ago a host was heard whose health still says something.
const lately = 10 * time.Minute

// gateHealth blocks later waves while a host of an earlier one is unwell.
func gateHealth(c *candidate) string {
	if c.sick.found && c.sick.wave < c.Wave {
		return c.sick.detail
	}
	return ""
}

// sick is the host with the lowest wave that runs its target, was heard lately,
// and has an enforce probe whose latest result is a failure.
type sick struct {
	found  bool
	wave   int
	detail string
}

func (p *planner) sickest(r *Rollout) sick {
	for i := range r.Hosts { // by wave
		h := &r.Hosts[i]
		if h.State != lifecycle.Soaking && h.State != lifecycle.Converged {
			continue
		}
		name, failing := h.failingProbe()
		if failing && p.w.Ready-p.machine(h.Hostname).Seen <= lately && !p.w.gone(r, h.Hostname) {
			return sick{found: true, wave: h.Wave, detail: fmt.Sprintf("host %s: probe %s", h.Hostname, name)}
		}
	}
	return sick{}
}

// failingProbe is the first enforce probe whose latest result is a failure.
func (h *HostRow) failingProbe() (string, bool) {
	for i := range h.Probes {
		if pr := &h.Probes[i]; pr.Mode == lifecycle.Enforce && pr.Status == lifecycle.Fail {
			return pr.Name, true
		}
	}
	return "", false
}
