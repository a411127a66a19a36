package lifecycle

import (
	"time"

	"nixfleet/internal/fleet"
)

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
	Roots    []fleet.Closure // closures that a garbage collection must not take
}

// Fetch wants the target in the store, and the checks before a switch made.
type Fetch struct{ Target fleet.Closure }

// Switch wants the target live. Unchanged hosts never want it.
type Switch struct{ Target, Prior fleet.Closure }

// Guard wants a dead man's switch over the machine. ConfirmBy is the running
// time at which it acts when nothing was confirmed; 0 means liveness alone.
type Guard struct {
	Target, Prior fleet.Closure
	ConfirmBy     int64
	Confirmed     bool
	BootOnly      bool // Deferred: the lease alone, for the boot-time form
}

// Persist wants the target to be the boot default.
type Persist struct{ Target fleet.Closure }

// Rollback wants the machine on To, live and booting it.
type Rollback struct {
	To       fleet.Closure
	BootOnly bool // current is To already; only the boot default is owed
}

// Reboot wants one boot, inside the window of the policy unless Way is back.
type Reboot struct{ Reason string } // deferred, rollback

// Now is when, and on what, Due decides.
type Now struct {
	Wall   time.Time
	Active int64 // running time of this rollout, seconds
	BootID string
	// Observation of the machine made for this very input; Converged and drift
	// are decided by it. Nil: none was made.
	Observation *Observed
}
