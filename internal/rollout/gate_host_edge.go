package rollout

import "nixfleet/internal/lifecycle"

// gateHostEdge blocks a host until the hosts that go first have Converged. Those
// that nobody waits for are not waited for here either: they are skipped, gone,
// or their failure was accepted.
func gateHostEdge(c *candidate) string {
	for _, first := range c.plan.edges[c.Hostname] {
		h := c.r.Host(first)
		if h == nil || h.State == lifecycle.Converged || h.Skip != nil || h.Accepted != nil || c.p.w.gone(c.r, first) {
			continue
		}
		return "host " + first
	}
	return ""
}
