package lifecycle

import (
	"time"

	"nixfleet/internal/fleet"
)

// State is where one host is in one rollout.
type State string

// The states. Converged, Reverted, Superseded, and Failed without a rollback
// owed are terminal.
const (
	Pending    State = "Pending"
	Activating State = "Activating"
	Deferred   State = "Deferred"
	Soaking    State = "Soaking"
	Converged  State = "Converged"
	Failed     State = "Failed"
	Reverted   State = "Reverted"
	Superseded State = "Superseded"
)

// Host is one host in one rollout: a value that only Step changes. Its JSON form
// is what the agent journals and what the control plane stores; changes to it are
// additive, because an older program may read what a newer one wrote.
type Host struct {
	// Fixed when the host enters the rollout, from the verified manifest.
	Hostname      string        `json:"hostname"`
	Rollout       string        `json:"rollout"`
	Channel       string        `json:"channel"`
	Attempt       int           `json:"attempt"`
	PlanHash      string        `json:"planHash,omitempty"`
	FirstSignedAt time.Time     `json:"firstSignedAt,omitzero"` // of the first accepted bytes of this rollout's manifest
	Target        fleet.Closure `json:"target"`
	Wave          int           `json:"wave"`
	SoakSecs      int           `json:"soakSecs"`
	Policy        fleet.Policy  `json:"policy"`

	State  State     `json:"state"`
	Since  time.Time `json:"since,omitzero"` // wall time of the event that led to State; for people only
	Seq    int64     `json:"seq"`            // of the last event, refused ones included
	Active int64     `json:"active"`         // running time of the last event, seconds

	// The machine, as the last event that said so observed it.
	Current     fleet.Closure `json:"current,omitempty"`
	BootDefault fleet.Closure `json:"bootDefault,omitempty"`
	BootID      string        `json:"bootId,omitempty"`

	// Set by ActivationStarted; the boot and the time again by a boot that undid
	// the activation, which is then tried once more.
	Prior         fleet.Closure `json:"prior,omitempty"`
	Ran           fleet.Closure `json:"ran,omitempty"` // what ran: prior, or a system on trial in a superseded rollout
	Mutated       bool          `json:"mutated,omitempty"`
	SwitchMethod  string        `json:"switchMethod,omitempty"`
	StartBootID   string        `json:"startBootId,omitempty"`
	StartedActive int64         `json:"startedActive,omitempty"` // running time
	Retried       bool          `json:"retried,omitempty"`

	// Since ActivationCompleted.
	CompletedActive int64     `json:"completedActive,omitempty"` // running time
	CompletedAt     time.Time `json:"completedAt,omitzero"`
	LiveBootID      string    `json:"liveBootId,omitempty"` // the boot in which the target was last seen live; Confirmed is about this one
	Declared        bool      `json:"declared,omitempty"`   // the probe topology was declared after the activation
	Probes          []Probe   `json:"probes,omitempty"`     // sorted by name
	Confirmed       bool      `json:"confirmed,omitempty"`
	ConfirmUntil    int64     `json:"confirmUntil,omitempty"` // running time at which an unconfirmed window ends
	Persisted       bool      `json:"persisted,omitempty"`
	PersistFailing  *int64    `json:"persistFailing,omitempty"` // running time of the first PersistFailed without a Persisted since

	// The way out.
	SignalPending   bool     `json:"signalPending,omitempty"` // a signal came while the switch ran; it is answered when the switch ends
	Failure         *Failure `json:"failure,omitempty"`
	RollbackOwed    bool     `json:"rollbackOwed,omitempty"`
	RollbackFailed  int      `json:"rollbackFailed,omitempty"`  // how often
	RollbackByBoot  bool     `json:"rollbackByBoot,omitempty"`  // prior boots, but cannot be made live: only a boot can finish
	RollbackReboots int      `json:"rollbackReboots,omitempty"` // how often
	RebootActive    *int64   `json:"rebootActive,omitempty"`    // running time at which the agent last asked for a reboot
	SupersededBy    string   `json:"supersededBy,omitempty"`

	// After convergence: what HealthChanged last said, and the changes since.
	Unhealthy           bool   `json:"unhealthy,omitempty"`
	Drifted             bool   `json:"drifted,omitempty"`
	HealthChangedActive *int64 `json:"healthChangedActive,omitempty"` // running time
	HealthChanges       int    `json:"healthChanges,omitempty"`
}

// Probe is one declared probe and its latest result.
type Probe struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Mode    Mode   `json:"mode"`
	Status  Status `json:"status,omitempty"`  // "" before the first result since the activation
	Failing *int64 `json:"failing,omitempty"` // running time of the first failure without a pass since
}

// Failure is why a target was given up.
type Failure struct {
	Cause    Cause     `json:"cause"`
	Phase    Phase     `json:"phase,omitempty"`
	ExitCode int       `json:"exitCode,omitempty"`
	Detail   string    `json:"detail,omitempty"` // stderr tail or failing probes, at most 512 bytes
	At       time.Time `json:"at"`
	// BadSignature: no cache had the closure signed by a pinned key.
	BadSignature bool `json:"badSignature,omitempty"`
}

// Terminal tells whether nothing more is owed: no event but facts and notices
// will change the state of this host in this rollout.
func (h Host) Terminal() bool {
	switch h.State {
	case Converged, Reverted, Superseded:
		return true
	case Failed:
		return !h.RollbackOwed
	}
	return false
}

// Live tells whether the rollout has begun to change the machine and has not
// ended. At most one rollout of a host is live.
func (h Host) Live() bool { return h.Mutated && !h.Terminal() }

// Unchanged tells whether the rollout changes nothing: its target is what ran
// and what would be gone back to.
func (h Host) Unchanged() bool { return h.Mutated && h.Prior == h.Target && h.Ran == h.Target }
