package rollout

import "strconv"

// gateWave blocks hosts of later waves than the current one.
func gateWave(c *candidate) string {
	if c.Wave <= c.r.Wave {
		return ""
	}
	return "wave " + strconv.Itoa(c.Wave)
}
