package rollout

// gateChannelEdge blocks a channel until those that go first have finished the
// rollout of the same or of a newer fleet document.
func gateChannelEdge(c *candidate) string { return c.waitsOn }

// waitsOn is the first channel in the manifest's order that the rollout waits
// for, or "".
func (w *World) waitsOn(r *Rollout) string {
	for _, e := range r.Manifest.ChannelEdges {
		if e.Gated == r.Channel && !w.finished(e.Gates, r) {
			return "channel " + e.Gates
		}
	}
	return ""
}

// finished tells whether the channel need not be waited for by the rollout. One
// without hosts has nothing to finish.
func (w *World) finished(channel string, by *Rollout) bool {
	if ch := w.Channels[channel]; ch != nil {
		if r := w.Rollouts[ch.Newest]; r != nil && r.State == Terminal && !r.FleetSignedAt.Before(by.FleetSignedAt) {
			return true
		}
	}
	return w.Release != nil && !w.Release.reaches(channel)
}
