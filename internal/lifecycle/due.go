package lifecycle

import (
	"fmt"
	"math"
	"time"
)

// healthChangedSecs is the shortest time between two reports of HealthChanged.
const healthChangedSecs = 10 * 60

// lookAgain is when to ask again where only an observation was missing.
const lookAgain = time.Second

// Due is an event that time or a new observation has made true, to be committed
// before Due is asked again, or nil and how much running time may pass before it
// has to be asked again; 0: only a new input can make something due.
//
// What was seen of the machine comes first: an Observation that differs from what
// the host knows is itself due, and nothing is decided before it is committed.
func Due(h Host, n Now) (Body, time.Duration) {
	if h.State == Pending || h.State == Superseded {
		return nil, 0
	}
	if n.Observation != nil && h.news(n) {
		return *n.Observation, 0
	}
	if n.BootID != "" && h.BootID != "" && n.BootID != h.BootID {
		return nil, lookAgain // what happened at the boot is not known yet
	}
	switch h.State {
	case Activating:
		return h.dueActivating(n)
	case Deferred:
		return h.dueDeferred(n)
	case Soaking:
		return h.dueSoaking(n)
	case Converged:
		return h.dueConverged(n)
	}
	return nil, 0
}

// news tells whether the observation is worth an event. What a switch or a
// rollback does to the machine is none, as long as it may run: its outcome says it.
func (h *Host) news(n Now) bool {
	o := *n.Observation
	if !h.differs(o) {
		return h.resumeMatters(n)
	}
	booted := o.BootID != "" && o.BootID != h.BootID
	return booted || !h.beingChanged()
}

// beingChanged tells whether a switch or a rollback is wanted.
func (h *Host) beingChanged() bool {
	return h.State == Activating && h.Mutated || h.State == Failed && h.RollbackOwed
}

// differs tells whether the observation says something that the host does not know.
func (h *Host) differs(o Observed) bool {
	seen := *h
	seen.see(o)
	return seen.Current != h.Current || seen.BootDefault != h.BootDefault || seen.BootID != h.BootID
}

// resumeMatters tells whether a resume would lengthen the confirm window.
func (h *Host) resumeMatters(n Now) bool {
	return n.Observation.Resumed && h.State == Soaking && h.confirmAwaited() &&
		h.ConfirmUntil < n.Active+h.confirmAtLeast()
}

func (h *Host) dueActivating(n Now) (Body, time.Duration) {
	if h.Retried && h.bootedBack(h.StartBootID) {
		return h.bootFailed(), 0
	}
	begun := int64(0)
	if h.Retried {
		begun = h.StartedActive // the boot may have come long after the deadline, in a long soak
	}
	end := begun + int64(h.Policy.ActivationDeadlineSecs)
	if left := end - n.Active; left > 0 {
		return nil, seconds(left)
	}
	if h.Mutated {
		return h.gives(CauseDeadline, n.Active-begun), 0
	}
	return ActivationFailed{
		ExitCode:   noExit,
		StderrTail: fmt.Sprintf("not ready to switch within %d s", h.Policy.ActivationDeadlineSecs),
		Phase:      PhaseFetch,
	}, 0
}

func (h *Host) dueDeferred(n Now) (Body, time.Duration) {
	booted := h.StartBootID != "" && h.BootID != h.StartBootID
	switch {
	case h.bootedBack(h.StartBootID):
		return h.bootFailed(), 0
	case !booted && (h.Current == h.Ran || h.Current == h.Target):
		return nil, 0
	case n.Observation == nil:
		return nil, lookAgain
	case h.Current == h.Target:
		return ActivationCompleted{ObservedCurrentClosure: h.Current, BootID: h.BootID}, 0
	}
	return h.gives(CauseDrift, 0), 0
}

func (h *Host) dueSoaking(n Now) (Body, time.Duration) {
	if h.bootedPrior(h.LiveBootID) {
		return h.bootFailed(), 0
	}
	if h.Current != h.Target {
		if n.Observation == nil {
			return nil, lookAgain
		}
		return h.gives(CauseDrift, 0), 0
	}
	end := h.firstEnd()
	if end.at <= n.Active {
		return h.gives(end.cause, n.Active-end.begun), 0
	}
	if h.unproven() == "" && h.persisted() && h.soakEnds() <= n.Active {
		if n.Observation == nil {
			return nil, lookAgain
		}
		return HasConverged{CurrentClosure: h.Current, SoakedSecs: n.Active - h.CompletedActive}, 0
	}
	if ends := h.soakEnds(); n.Active < ends {
		end.at = min(end.at, ends)
	}
	if end.at == never {
		return nil, 0
	}
	return nil, seconds(end.at - n.Active)
}

// end is when the soak is given up, why, and since when there was a reason.
type end struct {
	at, begun int64
	cause     Cause
}

const never = math.MaxInt64

// firstEnd is the first reason to give up the soak, as things stand: when several
// have come true in a sleep, it is what came first that decides about a quarantine.
func (h *Host) firstEnd() end {
	first := end{at: never}
	consider := func(c Cause, begun, after int64) {
		if at := begun + after; at < first.at {
			first = end{at, begun, c}
		}
	}
	for _, p := range h.Probes {
		if p.Failing != nil && p.Mode.decides() {
			consider(CauseProbes, *p.Failing, int64(h.Policy.HealthFailureSecs))
		}
	}
	if h.confirmAwaited() {
		consider(CauseConfirm, h.CompletedActive, h.ConfirmUntil-h.CompletedActive)
	}
	if h.PersistFailing != nil {
		consider(CausePersist, *h.PersistFailing, int64(h.Policy.PersistFailureSecs))
	}
	return first
}

func (h *Host) dueConverged(n Now) (Body, time.Duration) {
	now := h.health()
	if now == (health{h.Unhealthy, h.Drifted}) {
		return nil, 0
	}
	if h.HealthChangedActive != nil {
		if left := *h.HealthChangedActive + healthChangedSecs - n.Active; left > 0 {
			return nil, seconds(left)
		}
	}
	return HealthChanged{
		Healthy:       !now.unhealthy,
		FailingProbes: h.failingProbes(),
		Drifted:       now.drifted,
		Flaps:         max(0, h.HealthChanges-1), // this report is one of the changes
	}, 0
}

// noExit is the exit code of an activation that no program ended.
const noExit = -1

func (h *Host) bootFailed() ActivationFailed {
	return ActivationFailed{
		ExitCode:   noExit,
		StderrTail: fmt.Sprintf("a boot led to %s instead of %s", h.Current.Path(), h.Target.Path()),
		Phase:      PhaseBoot,
		Mutated:    true,
	}
}

func (h *Host) gives(c Cause, sustained int64) GaveUp {
	return GaveUp{
		SustainedDurationSecs: sustained,
		FailingProbes:         h.failingProbes(),
		PolicyApplied:         h.Policy.OnHealthFailure,
		Cause:                 c,
	}
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
