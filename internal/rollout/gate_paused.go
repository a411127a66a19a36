package rollout

// gatePaused blocks the hosts of a paused channel.
func gatePaused(c *candidate) string { return c.paused }

func (w *World) paused(r *Rollout) string {
	if f := w.Channels[r.Channel].Paused; f != nil {
		return f.text()
	}
	return ""
}
