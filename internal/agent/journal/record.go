package journal

import (
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
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

	Chain      Chain        `json:"chain,omitzero"`
	Marks      Marks        `json:"marks,omitzero"`
	Quarantine []Quarantine `json:"quarantine,omitempty"`

	// Notices wait for a rollout to be sent in.
	Notices []lifecycle.Notice `json:"notices,omitempty"`
}

// Chain is where the host's chain of signed records stands.
type Chain struct {
	Head  string `json:"head,omitempty"` // hex SHA-256 of the last record; "" before the first
	Count int64  `json:"count,omitempty"`
}

// Mark is the newest accepted document of a kind.
type Mark struct {
	SignedAt time.Time `json:"signedAt,omitzero"`
	Hash     string    `json:"hash,omitempty"` // the plan's hash for a manifest, else that of the canonical bytes
}

// Marks are what nothing older is accepted than.
type Marks struct {
	Manifest Mark `json:"manifest,omitzero"`
	Fleet    Mark `json:"fleet,omitzero"`

	// Synchronised is the newest time at which the clock was known to be right.
	Synchronised time.Time `json:"synchronised,omitzero"`
}

// Quarantine keeps a closure that failed here from being tried again at once.
type Quarantine struct {
	Channel       string        `json:"channel"`
	Closure       fleet.Closure `json:"closure"`
	Rollout       string        `json:"rollout"`       // the last one that failed
	FirstSignedAt time.Time     `json:"firstSignedAt"` // of that rollout's manifest
	Until         time.Time     `json:"until"`
	Count         int           `json:"count"` // how often it failed; the delay doubles with it
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

	Intent *Intent `json:"intent,omitempty"`

	// Runs are the ids of the units that were started, by slot. A unit that was
	// wanted and has no id was never started.
	Runs map[string]string `json:"runs,omitempty"`

	// Answered are the signals that were answered, the latest last.
	Answered []string `json:"answered,omitempty"`

	// Probed is when a probe's result was last committed after convergence.
	Probed map[string]int64 `json:"probed,omitempty"`

	QuarantineSet bool `json:"quarantineSet,omitempty"`
}

// Intent is what the machine was when it began to be changed.
type Intent struct {
	BootID      string            `json:"bootId"`
	FailedUnits []string          `json:"failedUnits,omitempty"`
	Restarts    map[string]uint32 `json:"restarts,omitempty"`
}

// Document is a signed document that was accepted, with the verdict: it stays
// accepted whatever becomes of the keys.
type Document struct {
	Bytes      []byte    `json:"bytes"`
	Signature  []byte    `json:"signature"`
	Hash       string    `json:"hash"`
	PlanHash   string    `json:"planHash,omitempty"`
	KeyID      string    `json:"keyId"`
	SignedAt   time.Time `json:"signedAt"`
	AcceptedAt time.Time `json:"acceptedAt"`
	ETag       string    `json:"etag,omitempty"`
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
