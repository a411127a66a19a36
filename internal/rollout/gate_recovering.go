package rollout

// gateRecovering blocks everybody while the hosts may know more than the
// database: it may have forgotten a halt.
func gateRecovering(c *candidate) string {
	if f := c.p.w.Recovery; f != nil {
		return f.text()
	}
	return ""
}

// text is the flag as the detail of a deferral, never empty.
func (f *Flag) text() string {
	switch {
	case f.Who == "" && f.Why == "":
		return "since " + f.At.UTC().Format("2006-01-02T15:04:05Z")
	case f.Who == "":
		return f.Why
	case f.Why == "":
		return "by " + f.Who
	}
	return "by " + f.Who + ": " + f.Why
}
