package rollout

// gateQuarantine blocks a host whose target was given up in its channel, unless
// the rollout is free of that.
func gateQuarantine(c *candidate) string {
	if q, ok := c.p.barred.bars(c.r, c.Target); ok {
		return q.why()
	}
	return ""
}
