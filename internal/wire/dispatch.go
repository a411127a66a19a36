package wire

import (
	"time"

	"nixfleet/internal/fleet"
)

// OrderKind tells the two orders apart.
type OrderKind string

// The kinds of orders. A published order without a kind is a dispatch.
const (
	OrderDispatch       OrderKind = "Dispatch"
	OrderRollbackSignal OrderKind = "RollbackSignal"
)

// Order is what a dispatch poll is answered with. Everything in it is a hint:
// target, policy and wave come from the verified manifest of RolloutID. It is
// offered until the answer to it is stored.
type Order struct {
	OrderID   string    `json:"order_id,omitempty"`
	Kind      OrderKind `json:"kind,omitempty"`
	Hostname  string    `json:"hostname"`
	RolloutID string    `json:"rollout_id"`

	// Of a dispatch.
	TargetClosure fleet.Closure `json:"target_closure,omitempty"`
	SoakDueAt     time.Time     `json:"soak_due_at,omitzero"` // informs only
	EnqueuedAt    time.Time     `json:"enqueued_at,omitzero"`
	Wave          int           `json:"wave,omitempty"`
	ManifestHash  string        `json:"manifest_hash,omitempty"` // hex SHA-256 of the canonical manifest

	// Of a rollback signal.
	Reason   string    `json:"reason,omitempty"`
	IssuedAt time.Time `json:"issued_at,omitzero"`
}

// Reject is the host's refusal of a dispatch: not a lifecycle event, and without
// a number. The order is offered again after RetryAfterSecs, or when the cause
// changed.
type Reject struct {
	OrderID        string       `json:"orderId"`
	RolloutID      string       `json:"rolloutId"`
	Reason         RejectReason `json:"reason"`
	Detail         string       `json:"detail"`
	RetryAfterSecs int          `json:"retryAfterSecs"`
}

// RejectReason says why a dispatch was refused. Besides those below it is the
// kebab-case name of a verification error, such as "stale" or "bad-signature".
type RejectReason string

// The reasons that are not verification errors.
const (
	RejectNotInManifest RejectReason = "not-in-manifest"
	RejectNoManifest    RejectReason = "no-manifest"
	RejectQuarantined   RejectReason = "quarantined"
	RejectClockSuspect  RejectReason = "clock-suspect"
	RejectHeld          RejectReason = "held"
	RejectBusy          RejectReason = "busy"
)
