package lifecycle

import "fmt"

// liveAttempts is how often a rollback is tried in the running system before a
// boot has to finish it.
const liveAttempts = 2

func (h *Host) rollbackFailed(b RollbackFailed) string {
	if h.State != Failed || !h.RollbackOwed {
		return wrongState
	}
	h.RollbackFailed++
	// Only the switch itself and what is seen of it come after prior is the boot
	// default; a boot before that would not lead there.
	live := b.Phase == PhaseSwitch || b.Phase == PhaseObserve
	if b.BootRequired || live && h.RollbackFailed >= liveAttempts {
		h.RollbackByBoot = true
	}
	return ""
}

func (h *Host) rolledBack(b RollbackComplete, e Event) string {
	if h.State != Failed || !h.RollbackOwed {
		return wrongState
	}
	if b.RevertedToClosure != h.Prior {
		return fmt.Sprintf("it went back to %s, prior is %s", b.RevertedToClosure, h.Prior)
	}
	h.Current, h.BootDefault = h.Prior, h.Prior
	h.RollbackOwed, h.RollbackByBoot = false, false
	h.enter(Reverted, e)
	return ""
}

func (h *Host) rebooting() string {
	switch {
	case h.State == Deferred:
	case h.State == Failed && h.RollbackOwed:
		h.RollbackReboots++
	default:
		return wrongState
	}
	at := h.Active
	h.RebootActive = &at
	return ""
}

// runsPrior tells whether prior runs as a whole. In a boot in which a switch was
// begun it may not, whatever the link to the current system says.
func (h *Host) runsPrior() bool {
	touched := h.SwitchMethod != MethodBoot && h.BootID == h.StartBootID
	return h.Current == h.Prior && !touched
}

// A host whose boots do not lead to prior must not boot for ever: each further one
// waits twice as long. A boot into a staged target is asked for again in the same
// boot only when the first request has clearly come to nothing.
const (
	firstRebootDelay = 10 * 60
	maxRebootDelay   = 6 * 60 * 60
)

// nextReboot is the running time before which no boot is asked for.
func (h *Host) nextReboot() int64 {
	if h.RebootActive == nil {
		return 0
	}
	delay := int64(maxRebootDelay)
	if h.RollbackReboots > 0 {
		delay = firstRebootDelay << min(h.RollbackReboots-1, 6)
	}
	return *h.RebootActive + min(delay, maxRebootDelay)
}
