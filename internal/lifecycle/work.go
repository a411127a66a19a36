package lifecycle

import "nixfleet/internal/fleet"

// Work is what should be under way on the machine now, as a function of state
// alone. A nil field means that nothing of that kind is wanted.
type Work struct {
	Fetch    *Fetch
	Switch   *Switch
	Guard    *Guard
	Probes   bool
	Confirm  bool
	Persist  *Persist
	Rollback *Rollback
	Reboot   *Reboot
	Roots    []fleet.Closure // what a garbage collection must not take; the agent adds its own path
}

// Fetch wants the target in the store, and the checks before a switch made.
type Fetch struct{ Target fleet.Closure }

// Switch wants the target live. Unchanged hosts never want it.
type Switch struct{ Target, Prior fleet.Closure }

// Guard wants a dead man's switch over the machine.
type Guard struct {
	Target, Prior fleet.Closure
	// ConfirmBy is the running time at which the guard acts when nothing was
	// confirmed. 0: it acts on silence of the agent alone.
	ConfirmBy  int64
	WindowSecs int  // for the boot-time form: how long after a boot it waits for a confirmation; 0: none is needed
	AliveSecs  int  // silence of the agent after which the guard acts
	Confirmed  bool // in this boot
	BootOnly   bool // prior runs, the target is staged: the lease alone, for the boot-time form
}

// Persist wants the target to be the boot default, not before the running time
// NotBefore.
type Persist struct {
	Target    fleet.Closure
	NotBefore int64
}

// Rollback wants the machine on To, live and booting it.
type Rollback struct {
	To       fleet.Closure
	BootOnly bool // To runs already; only the boot default is owed
}

// Reboot wants one boot, not before the running time NotBefore, and inside Window
// where there is one; the way back needs none. It goes on being wanted after
// RebootStarted, with a later NotBefore, until a boot has come.
type Reboot struct {
	Reason    string // RebootDeferred, RebootRollback
	Window    *fleet.RebootWindow
	NotBefore int64
}

// Now is when, and on what, Due decides. There is no wall time in it, so that no
// clock step can decide anything.
type Now struct {
	Active int64  // running time of this rollout, seconds
	BootID string // of the boot in which Due is asked
	// Observation of the machine, made for this very input. Converged and drift
	// are decided by it alone. Nil: none was made.
	Observation *Observed
}
