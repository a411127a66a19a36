package rollout

import (
	"time"

	"nixfleet/internal/fleet"
)

// Action is one thing that the planner decided or an operator asked for. Its
// JSON form is the row of the log from which a database is rebuilt.
type Action struct {
	At    time.Time
	Ready time.Duration // the planner's ready time
	Body  Body
}

// Body is what is particular to one kind of action.
type Body interface {
	Kind() Kind
	check(w *World) error        // a *Conflict when it does not fit the world; changes nothing
	apply(w *World, when moment) // after a check that passed
}

// moment is when an action happened.
type moment struct {
	at    time.Time
	ready time.Duration
}

// Kind names an action in the log.
type Kind string

// What the planner decides.
const (
	KindOpened     Kind = "opened"
	KindRefreshed  Kind = "refreshed"
	KindDelivered  Kind = "delivered"
	KindReleased   Kind = "released"
	KindSignalled  Kind = "signalled"
	KindAdvanced   Kind = "advanced"
	KindSkipped    Kind = "skipped"
	KindJoined     Kind = "joined"
	KindLost       Kind = "lost"
	KindFound      Kind = "found"
	KindHalted     Kind = "halted"
	KindConverging Kind = "converging"
	KindFinished   Kind = "finished"
	KindReverted   Kind = "reverted"
	KindDeferred   Kind = "deferred"
)

// What the core learns, or an operator asks for.
const (
	KindRejected          Kind = "rejected"
	KindRemoved           Kind = "pruned"
	KindRecovering        Kind = "recovering"
	KindRecovered         Kind = "recovered"
	KindPaused            Kind = "paused"
	KindResumed           Kind = "resumed"
	KindAccepted          Kind = "accepted"
	KindForced            Kind = "forced"
	KindRolledBack        Kind = "rolled-back"
	KindQuarantineCleared Kind = "quarantine-cleared"
	KindForgotten         Kind = "forgotten"
	KindRemembered        Kind = "remembered"
)

// Opened opens rollouts of the newest release.
type Opened struct {
	FleetHash string       `json:"fleetHash"`
	Rollouts  []NewRollout `json:"rollouts"` // by channel
}

// NewRollout is one rollout that opens.
type NewRollout struct {
	ID         string `json:"id"`
	Channel    string `json:"channel"`
	PlanHash   string `json:"planHash"`
	Supersedes string `json:"supersedes,omitempty"` // the channel's unfinished rollout, superseded in the same action
}

// Refreshed takes newer bytes of a rollout's unchanged plan from the newest release.
type Refreshed struct {
	Rollout   string    `json:"rollout"`
	SignedAt  time.Time `json:"signedAt"`
	FleetHash string    `json:"fleetHash"`
}

// Delivered hands an order to the host's parked poll.
type Delivered struct {
	Rollout  string        `json:"rollout"`
	Host     string        `json:"host"`
	OrderID  string        `json:"orderId"`
	Target   fleet.Closure `json:"target"`
	Wave     int           `json:"wave"`
	Slotless bool          `json:"slotless,omitempty"` // the host runs and boots the target already
}

// Released takes an order back whose answer was lost: a later heartbeat shows
// that the host has no event of the rollout.
type Released struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
	OrderID string `json:"orderId"`
}

// Signalled hands a request to leave the rollout to the host's parked poll.
type Signalled struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
	OrderID string `json:"orderId"`
	Reason  string `json:"reason"`
}

// Advanced makes Wave the current one: the one before it is done.
type Advanced struct {
	Rollout string `json:"rollout"`
	Wave    int    `json:"wave"`
}

// Skipped stops waiting for a host.
type Skipped struct {
	Rollout string     `json:"rollout"`
	Host    string     `json:"host"`
	Reason  SkipReason `json:"reason"`
	Who     string     `json:"who,omitempty"`
	Why     string     `json:"why,omitempty"`
}

// Joined waits again for a host that was skipped.
type Joined struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
}

// Lost counts a host as failed that fell silent while it was being changed.
type Lost struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
}

// Found takes a Lost back: the host was heard again.
type Found struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
}

// Halted halts a rollout, because Limit hosts failed or were lost.
type Halted struct {
	Rollout string   `json:"rollout"`
	Hosts   []string `json:"hosts"`
	Limit   int      `json:"limit"`
}

// Moved moves a rollout to Converging, Terminal or Reverted.
type Moved struct {
	Rollout string `json:"rollout"`
	To      State  `json:"to"`
}

// Deferred records what holds a host back; a Deferral of no gate: nothing does.
type Deferred struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
	Deferral
}

// Rejected is a host's refusal of an order.
type Rejected struct {
	Rollout    string        `json:"rollout"`
	Host       string        `json:"host"`
	OrderID    string        `json:"orderId"`
	Reason     string        `json:"reason"`
	Detail     string        `json:"detail,omitempty"`
	RetryAfter time.Duration `json:"retryAfter"`
}

// Removed prunes a rollout: it leaves only a rollout's tombstone.
type Removed struct {
	Rollout string `json:"rollout"`
}

// Recovering stops all dispatching: the hosts know more than the database.
type Recovering struct {
	Why string `json:"why"`
}

// Recovered ends a recovery.
type Recovered struct {
	Who string `json:"who"`
	Why string `json:"why"`
}

// Paused pauses a channel.
type Paused struct {
	Channel string `json:"channel"`
	Who     string `json:"who"`
	Why     string `json:"why"`
}

// Resumed ends a channel's pause.
type Resumed struct {
	Channel string `json:"channel"`
	Who     string `json:"who"`
	Why     string `json:"why"`
}

// Accepted takes hosts' failures as done. A halted rollout becomes Active, which
// is refused while as many other failures as halt it are left.
type Accepted struct {
	Rollout string   `json:"rollout"`
	Hosts   []string `json:"hosts"`
	Who     string   `json:"who"`
	Why     string   `json:"why"`
}

// Forced lets the current wave be done without anybody Converged.
type Forced struct {
	Rollout string `json:"rollout"`
	Wave    int    `json:"wave"`
	Who     string `json:"who"`
	Why     string `json:"why"`
}

// RolledBack halts a rollout and asks every host that began it and has not
// converged to leave it.
type RolledBack struct {
	Rollout string `json:"rollout"`
	Who     string `json:"who"`
	Why     string `json:"why"`
}

// QuarantineCleared takes a closure out of quarantine.
type QuarantineCleared struct {
	Channel string        `json:"channel"`
	Closure fleet.Closure `json:"closure"`
	Who     string        `json:"who"`
	Why     string        `json:"why"`
}

// Forgotten makes a host count as removed, and what it was given until now count
// for nothing.
type Forgotten struct {
	Host string `json:"host"`
	Who  string `json:"who"`
	Why  string `json:"why"`
}

// Remembered ends a Forgotten: the host was enrolled again.
type Remembered struct {
	Host string `json:"host"`
}

// Kind of each body.
func (Opened) Kind() Kind            { return KindOpened }
func (Refreshed) Kind() Kind         { return KindRefreshed }
func (Delivered) Kind() Kind         { return KindDelivered }
func (Released) Kind() Kind          { return KindReleased }
func (Signalled) Kind() Kind         { return KindSignalled }
func (Advanced) Kind() Kind          { return KindAdvanced }
func (Skipped) Kind() Kind           { return KindSkipped }
func (Joined) Kind() Kind            { return KindJoined }
func (Lost) Kind() Kind              { return KindLost }
func (Found) Kind() Kind             { return KindFound }
func (Halted) Kind() Kind            { return KindHalted }
func (Deferred) Kind() Kind          { return KindDeferred }
func (Rejected) Kind() Kind          { return KindRejected }
func (Removed) Kind() Kind           { return KindRemoved }
func (Recovering) Kind() Kind        { return KindRecovering }
func (Recovered) Kind() Kind         { return KindRecovered }
func (Paused) Kind() Kind            { return KindPaused }
func (Resumed) Kind() Kind           { return KindResumed }
func (Accepted) Kind() Kind          { return KindAccepted }
func (Forced) Kind() Kind            { return KindForced }
func (RolledBack) Kind() Kind        { return KindRolledBack }
func (QuarantineCleared) Kind() Kind { return KindQuarantineCleared }
func (Forgotten) Kind() Kind         { return KindForgotten }
func (Remembered) Kind() Kind        { return KindRemembered }

// Kind is converging, finished or reverted, after the state that is entered.
func (m Moved) Kind() Kind {
	switch m.To {
	case Converging:
		return KindConverging
	case Reverted:
		return KindReverted
	}
	return KindFinished
}
