package lifecycle

import "nixfleet/internal/fleet"

// SwitchSecs is how long a switch may take, and ConfirmGraceSecs how much later
// than the agent the guard gives up waiting for a confirmation: an agent that
// lives always acts first.
const (
	SwitchSecs       = 30 * 60
	ConfirmGraceSecs = 60
)

// Want is what should be under way on the machine, as a function of state alone.
// The caller compares it with what is, after every commit and at every start.
func Want(h Host) Work {
	w := Work{Guard: h.guard()}
	switch h.State {
	case Activating:
		if !h.Mutated {
			w.Fetch = &Fetch{Target: h.Target}
		} else if !h.Unchanged() {
			w.Switch = &Switch{Target: h.Target, Prior: h.Prior}
		}
	case Deferred:
		if h.Policy.Reboot == fleet.RebootInWindow && h.BootID == h.StartBootID {
			w.Reboot = &Reboot{Reason: RebootDeferred, Window: h.Policy.RebootWindow, NotBefore: h.nextReboot()}
		}
	case Soaking:
		w.Probes = true
		w.Confirm = h.confirmAwaited()
		w.Persist = h.persist()
	case Converged:
		w.Probes = true
	case Failed:
		if !h.RollbackOwed {
			break
		}
		w.Rollback = &Rollback{To: h.Prior, BootOnly: h.runsPrior()}
		if h.RollbackByBoot && !h.runsPrior() {
			w.Reboot = &Reboot{Reason: RebootRollback, NotBefore: h.nextReboot()}
		}
	}
	w.Roots = h.roots()
	return w
}

func (h *Host) guard() *Guard {
	there := h.State == Soaking && h.Prior == h.Target // nothing to go back to
	if !h.Live() || h.Unchanged() || there {
		return nil
	}
	g := &Guard{
		Target:    h.Target,
		Prior:     h.Prior,
		AliveSecs: h.Policy.AliveSecs,
		Confirmed: h.Confirmed,
		BootOnly:  h.State == Deferred && h.Current == h.Prior,
	}
	if !h.confirmRequired() {
		return g
	}
	window := h.Policy.ConfirmWindowSecs
	switch {
	case h.State == Activating:
		g.WindowSecs = window
		g.ConfirmBy = h.StartedActive + SwitchSecs + int64(window) + ConfirmGraceSecs
	case h.State == Deferred:
		g.WindowSecs = window
	case h.State == Soaking:
		g.WindowSecs = window
		if !h.Confirmed {
			g.ConfirmBy = h.ConfirmUntil + ConfirmGraceSecs
		}
	}
	return g
}

// persist wants the target as boot default once an uplink was reached from it,
// and under the policy converged once all else holds as well.
func (h *Host) persist() *Persist {
	switch {
	case h.persisted() || h.confirmAwaited():
		return nil
	case h.Policy.Persist != fleet.PersistConverged || h.Unchanged():
		return &Persist{Target: h.Target}
	case h.unproven() != "":
		return nil
	}
	return &Persist{Target: h.Target, NotBefore: h.soakEnds()}
}

// roots are what must survive a garbage collection: where the host goes, and
// where it would go back to.
func (h *Host) roots() []fleet.Closure {
	if h.State == Pending || h.Terminal() {
		return nil
	}
	back := h.Prior
	if !h.Mutated {
		back = h.Current
	}
	if back == "" || back == h.Target {
		return []fleet.Closure{h.Target}
	}
	return []fleet.Closure{h.Target, back}
}
