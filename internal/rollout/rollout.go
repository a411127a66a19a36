package rollout

import (
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// State is where a rollout is.
type State string

// The states. Opening lasts only inside the Apply of an Opened.
const (
	Opening    State = "Opening"
	Active     State = "Active"
	Converging State = "Converging" // last wave, nobody Pending but skipped
	Terminal   State = "Terminal"   // every host is done
	Failed     State = "Failed"     // halted
	Reverted   State = "Reverted"   // halted, and every owed rollback has ended
	Superseded State = "Superseded" // a newer one opened before this one ended
	Pruned     State = "Pruned"     // only its tombstone is left
)

// Unfinished tells whether a newer rollout of the channel would supersede one
// in this state. A rollout that has ended keeps its end.
func (s State) Unfinished() bool { return s == Opening || s == Active || s == Converging }

// Halted tells whether a rollout in this state dispatches nothing any more.
func (s State) Halted() bool { return s == Failed || s == Reverted }

// Rollout is one opened manifest and its hosts.
type Rollout struct {
	ID       string          `json:"id"`
	Channel  string          `json:"channel"`
	PlanHash string          `json:"planHash"`
	Manifest *fleet.Manifest `json:"-"` // the newest accepted bytes, policy completed

	FirstSignedAt time.Time `json:"firstSignedAt"` // of the first accepted bytes
	SignedAt      time.Time `json:"signedAt"`      // of the newest
	FleetSignedAt time.Time `json:"fleetSignedAt"` // of the fleet document that the newest bytes were published with

	Opening      int64     `json:"opening"` // 1, 2, … over the whole fleet, in the order of opening
	OpenedAt     time.Time `json:"openedAt"`
	State        State     `json:"state"`
	Since        time.Time `json:"since"`            // when State was entered
	Halt         *Halt     `json:"halt,omitempty"`   // why it is, or last was, halted
	Wave         int       `json:"wave"`             // the current one
	Forced       *int      `json:"forced,omitempty"` // the wave that needs nobody Converged, because an operator said so
	SupersededBy string    `json:"supersededBy,omitempty"`

	Hosts []HostRow `json:"-"` // by wave, then name

	rows    map[string]int // index into Hosts by name
	begun   int            // rows that have begun and not ended
	counted bool           // begun is known
}

// Halt is why a rollout dispatches nothing any more.
type Halt struct {
	Flag
	Hosts []string `json:"hosts,omitempty"` // whose failure or silence it was
	Limit int      `json:"limit,omitempty"` // how many it took
}

// HostRow is one host in one rollout: its mirror, and what the planner holds
// about it.
type HostRow struct {
	lifecycle.Host

	Skip     *Skip     `json:"skip,omitempty"`     // nobody waits for it
	Lost     *Flag     `json:"lost,omitempty"`     // fell silent while it was being changed
	Accepted *Flag     `json:"accepted,omitempty"` // an operator took its failure as done
	Order    *Order    `json:"order,omitempty"`    // handed out, no answer stored yet
	Orders   int       `json:"orders,omitempty"`   // how many were handed out
	Reject   *Reject   `json:"reject,omitempty"`   // its latest refusal, until it acknowledges
	Signal   *Signal   `json:"signal,omitempty"`   // asked to leave the rollout, no answer stored yet
	Deferral *Deferral `json:"deferral,omitempty"` // what holds it back

	// Slotless: its last order or acknowledgement said that it changes nothing, so it takes no slot.
	Slotless bool `json:"slotless,omitempty"`
}

// SkipReason is why a host is skipped.
type SkipReason string

// The reasons. All but SkipOperator end by themselves.
const (
	SkipOffline    SkipReason = "offline"    // unseen for offlineAfterMinutes
	SkipRejecting  SkipReason = "rejecting"  // refused every order for as long
	SkipQuarantine SkipReason = "quarantine" // its target was given up before
	SkipOperator   SkipReason = "operator"
)

// Skip is a host that nobody waits for.
type Skip struct {
	Flag
	Reason SkipReason `json:"reason"`
}

// Order is a dispatch that was handed to a parked poll. Unless the row is
// Slotless it holds a slot until it is answered or released.
type Order struct {
	ID    string        `json:"id"`
	At    time.Time     `json:"at"`
	Ready time.Duration `json:"ready"`
}

// Reject is a host's refusal of an order.
type Reject struct {
	Reason string        `json:"reason"`
	Detail string        `json:"detail,omitempty"`
	At     time.Time     `json:"at"`
	Ready  time.Duration `json:"ready"` // of this refusal
	Since  time.Duration `json:"since"` // ready time of the first one without an acknowledgement since
	Retry  time.Duration `json:"retry"` // ready time from which the order is offered again
}

// Signal is a request to leave the rollout.
type Signal struct {
	Flag
	ID    string        `json:"id"`
	Sent  bool          `json:"sent"`
	Ready time.Duration `json:"ready"` // when it was sent last
}

// Deferral is the first gate that blocks a host, and on what.
type Deferral struct {
	Gate   Gate   `json:"gate"`
	Detail string `json:"detail"`
}

// Host finds a host of the rollout; nil when it has none of that name. The row
// must not be changed but by Apply and Record.
func (r *Rollout) Host(name string) *HostRow {
	if r.rows == nil {
		r.rows = make(map[string]int, len(r.Hosts))
		for i := range r.Hosts {
			r.rows[r.Hosts[i].Hostname] = i
		}
	}
	i, ok := r.rows[name]
	if !ok {
		return nil
	}
	return &r.Hosts[i]
}
