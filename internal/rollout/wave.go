package rollout

import "nixfleet/internal/lifecycle"

// done tells whether a wave need not wait for the host any more. A failure that
// has ended is done as long as it does not halt the rollout.
func (w *World) done(r *Rollout, h *HostRow) bool {
	if h.Skip != nil || h.Accepted != nil || w.gone(r, h.Hostname) {
		return true
	}
	if h.State == lifecycle.Deferred {
		return h.Policy.DeferredAdvances
	}
	return h.Terminal()
}

// failed tells whether the host counts towards the halt of its rollout.
func (h *HostRow) failed() bool {
	switch {
	case h.Accepted != nil:
		return false
	case h.State == lifecycle.Failed || h.State == lifecycle.Reverted:
		return true
	}
	return h.Lost != nil && h.Skip == nil
}

// waveDone tells whether the current wave is done: every host of it is, and one
// has Converged, so that a dead canary lets nothing pass; or an operator said
// that none has to.
func (w *World) waveDone(r *Rollout) bool {
	proven := r.Forced != nil && *r.Forced == r.Wave
	for i := range r.Hosts {
		h := &r.Hosts[i]
		if h.Wave != r.Wave {
			continue
		}
		if !w.done(r, h) {
			return false
		}
		proven = proven || h.State == lifecycle.Converged
	}
	return proven
}

// allDone tells whether the last wave is done, and the hosts of all others,
// those that joined late included.
func (w *World) allDone(r *Rollout) bool {
	for i := range r.Hosts {
		if !w.done(r, &r.Hosts[i]) {
			return false
		}
	}
	return w.waveDone(r)
}

// nextWave is the wave after the current one; waves without hosts are none.
func (r *Rollout) nextWave() (int, bool) {
	for i := range r.Hosts {
		if wave := r.Hosts[i].Wave; wave > r.Wave {
			return wave, true
		}
	}
	return 0, false
}

// gone tells whether the rollout's channel has lost the host: it is forgotten,
// or the newest fleet document declares it elsewhere or nowhere.
func (w *World) gone(r *Rollout, host string) bool {
	if _, forgotten := w.Forgotten[host]; forgotten || w.Release == nil {
		return forgotten
	}
	h, declared := w.Release.Fleet.Hosts[host]
	return !declared || h.Channel != r.Channel
}

// removed tells whether the host is no part of the fleet any more. One that only
// moved to another channel still holds the slots that it holds.
func (w *World) removed(host string) bool {
	if _, forgotten := w.Forgotten[host]; forgotten || w.Release == nil {
		return forgotten
	}
	_, declared := w.Release.Fleet.Hosts[host]
	return !declared
}
