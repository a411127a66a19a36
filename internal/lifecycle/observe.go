package lifecycle

import "cmp"

// atLeastSecs of a confirm window are left after a boot or a resume, because the
// network comes back later than the running time does.
const atLeastSecs = 120

func (h *Host) confirmAtLeast() int64 { return int64(min(atLeastSecs, h.Policy.ConfirmWindowSecs)) }

func (h *Host) observed(b Observed, e Event) {
	h.watchHealth(func() { h.see(b) })
	switch {
	case h.State == Activating && h.Mutated && !h.Retried && h.bootedBack(h.StartBootID):
		h.retry(e)
	case h.State == Soaking && !h.Persisted && !h.Retried && h.bootedPrior(h.LiveBootID):
		h.retry(e)
	case h.State == Soaking && h.Current == h.Target:
		h.stillLive(b.Resumed)
	}
}

// see takes what was observed of the machine. Empty fields say nothing.
func (h *Host) see(o Observed) {
	h.Current = cmp.Or(o.Current, h.Current)
	h.BootDefault = cmp.Or(o.BootDefault, h.BootDefault)
	h.BootID = cmp.Or(o.BootID, h.BootID)
}

// stillLive wants the confirmation again when the target came up in another boot,
// and leaves it time after a boot or a resume.
func (h *Host) stillLive(resumed bool) {
	booted := h.LiveBootID != "" && h.BootID != h.LiveBootID
	h.LiveBootID = h.BootID
	if booted {
		h.Confirmed = false
	}
	if (booted || resumed) && h.confirmAwaited() {
		h.ConfirmUntil = max(h.ConfirmUntil, h.Active+h.confirmAtLeast())
	}
}

// retry goes back to before the switch, once: the boot that undid it may have
// been a power cut, which is not the target's fault. A power cut also ends the
// switch that a signal was waiting for.
func (h *Host) retry(e Event) {
	if h.SignalPending {
		h.giveUp(Failure{Cause: CauseSignal}, true, e)
		return
	}
	h.forgetSoak()
	h.Retried = true
	h.Ran, h.StartBootID = h.Current, h.BootID
	h.StartedActive = h.Active
	h.enter(Activating, e)
}

// bootedPrior tells whether a boot after the given one landed on prior.
func (h *Host) bootedPrior(since string) bool {
	return h.Mutated && h.Prior != h.Target && h.Current == h.Prior &&
		since != "" && h.BootID != since
}

// bootedBack tells whether a boot after the given one landed on what ran before
// the target: prior, or the system of the rollout that was superseded for it, as
// long as that was the boot default.
func (h *Host) bootedBack(since string) bool {
	booted := since != "" && h.BootID != since
	return h.bootedPrior(since) || h.Mutated && booted && h.Current == h.Ran && h.Current != h.Target
}

// onPrior tells whether prior runs and, as far as is known, boots.
func (h *Host) onPrior() bool {
	return h.Current == h.Prior && (h.BootDefault == "" || h.BootDefault == h.Prior)
}
