package journal

import (
	"encoding/json"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
)

// Self is what the agent remembers about its host, whatever the rollout.
type Self struct {
	// Numbered tells that the control plane was asked once which numbers this
	// host's events have used. A journal that is new numbers nothing before.
	Numbered bool `json:"numbered,omitempty"`

	// LastSeqs are the answers to that question, by rollout: events of a rollout
	// that this journal does not know are numbered from above.
	LastSeqs map[string]int64 `json:"lastSeqs,omitempty"`

	// Accepted counts the rollouts that were accepted, so that their order is known.
	Accepted int64 `json:"accepted,omitempty"`

	// Marks are also in a file of their own, beside the journal: the higher counts.
	Marks      trust.Marks  `json:"marks,omitzero"`
	Quarantine []Quarantine `json:"quarantine,omitempty"`

	// Hold keeps new targets away, as long as it lasts.
	Hold *Hold `json:"hold,omitempty"`

	// Ahead is what is fetched before its order, or was, until an order comes.
	Ahead *Ahead `json:"ahead,omitempty"`

	// OutboxFull: changes that decide nothing are not committed for now.
	OutboxFull bool `json:"outboxFull,omitempty"`

	// Notices wait for a rollout to be sent in.
	Notices []lifecycle.Notice `json:"notices,omitempty"`
}

// Ahead is a rollout's target that is fetched before the rollout is accepted.
type Ahead struct {
	Rollout string        `json:"rollout"`
	Closure fleet.Closure `json:"closure"`
	BootID  string        `json:"bootId"` // in which the fetch began
}

// Quarantine keeps a closure that failed here from being tried again at once.
type Quarantine struct {
	lifecycle.Quarantine
	Why   string    `json:"why,omitempty"` // of the last failure, for people
	Until time.Time `json:"until"`
	Count int       `json:"count"` // how often it failed; the delay doubles with it
}

// Hold is an administrator's wish that this host takes no new targets.
type Hold struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"` // when it ends by itself
}

// Rollout is this host in one rollout.
type Rollout struct {
	Host  lifecycle.Host `json:"host"`
	Order int64          `json:"order"` // of acceptance: the higher is the newer

	// Active is the running time when it was last saved; Host.Active is that of
	// the last event.
	Active int64 `json:"active"`

	// AckSeq is the number of the DispatchAck. NeedsSlot: the machine is not
	// changed before the control plane has stored it.
	AckSeq    int64 `json:"ackSeq,omitempty"`
	NeedsSlot bool  `json:"needsSlot,omitempty"`

	Compliance string `json:"compliance,omitempty"` // the signed mode; "" leaves it to the host

	// Steps are the marks that activation's steps leave, by step.
	Steps map[string]json.RawMessage `json:"steps,omitempty"`

	// Answered are the signals that were answered, the latest last.
	Answered []string `json:"answered,omitempty"`

	// Probed is when a probe's result was last committed after convergence.
	Probed map[string]int64 `json:"probed,omitempty"`

	// Passed is the activation, by its running time, in which a probe passed first.
	Passed map[string]int64 `json:"passed,omitempty"`

	QuarantineSet bool `json:"quarantineSet,omitempty"`
}

// Document is an accepted document as it is kept, and the name that the control
// plane has for these bytes.
type Document struct {
	trust.Entry
	ETag string `json:"etag,omitempty"`
}

// DeadLetter is an event that the control plane refused. It is shown until the
// rollout is forgotten.
type DeadLetter struct {
	Rollout  string    `json:"rollout"`
	Seq      int64     `json:"seq"`
	Why      string    `json:"why"`
	At       time.Time `json:"at"`
	Envelope []byte    `json:"envelope"`
}
