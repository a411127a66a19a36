package rollout

import "strings"

// gateHalted blocks the hosts of a halted rollout.
func gateHalted(c *candidate) string { return c.halted }

func (r *Rollout) halted() string {
	switch {
	case !r.State.Halted():
		return ""
	case len(r.Halt.Hosts) > 0:
		return strings.Join(r.Halt.Hosts, ", ")
	}
	return r.Halt.text()
}
