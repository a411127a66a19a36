package trust

import (
	"cmp"
	"time"

	"nixfleet/internal/fleet"
)

// Verified is a document that passed every check, with the bytes that did.
type Verified[T any] struct {
	doc       *T
	bytes     []byte
	signature []byte
	hash      string // of a manifest: ""
	planHash  string // of a manifest only
	signedAt  time.Time
	keyID     string
	at        time.Time
	completer []byte // the fleet document that gave a manifest its policy
}

// Doc is the document. A manifest is complete: it has its policy. It is shared
// by all who hold the Verified, and nobody may change it.
func (v Verified[T]) Doc() *T { return v.doc }

// Bytes are the document's bytes as they were received.
func (v Verified[T]) Bytes() []byte { return v.bytes }

// Signature is what signed them.
func (v Verified[T]) Signature() []byte { return v.signature }

// Hash is the hex SHA-256 of the canonical document; "" for a manifest, whose
// plan hash is what counts.
func (v Verified[T]) Hash() string { return v.hash }

// PlanHash is what is frozen of a manifest; "" for other kinds.
func (v Verified[T]) PlanHash() string { return v.planHash }

// SignedAt is the document's own date.
func (v Verified[T]) SignedAt() time.Time { return v.signedAt }

// KeyID names the key that verified it.
func (v Verified[T]) KeyID() string { return v.keyID }

// VerifiedAt is when it was accepted.
func (v Verified[T]) VerifiedAt() time.Time { return v.at }

// Mark is the mark that accepting the document sets.
func (v Verified[T]) Mark() Mark {
	return Mark{SignedAt: v.signedAt, Hash: cmp.Or(v.planHash, v.hash)}
}

// Entry is an accepted document as its owner keeps it: the bytes, and the
// verdict.
type Entry struct {
	Document  []byte    `json:"document"`
	Signature []byte    `json:"signature"`
	KeyID     string    `json:"keyId"`
	At        time.Time `json:"at"`
	Fleet     []byte    `json:"fleet,omitempty"` // the fleet document that completed a manifest
}

// Entry is what to keep so that Accepted gives the document back.
func (v Verified[T]) Entry() Entry {
	return Entry{Document: v.bytes, Signature: v.signature, KeyID: v.keyID, At: v.at, Fleet: v.completer}
}

// Accepted is a document that was verified before. Neither the keys nor the
// dates are looked at again: a document that was accepted stays accepted, also
// when the very switch that it asked for took its key out of the trust roots.
// The entry must come from the caller's own durable state.
func Accepted[T Document | fleet.Manifest](e Entry) (Verified[T], error) {
	v, err := read[T](e.Document)
	if err != nil {
		return Verified[T]{}, err
	}
	v.signature, v.keyID, v.at = e.Signature, e.KeyID, e.At
	if m, ok := any(&v).(*Verified[fleet.Manifest]); ok {
		if err := acceptedWith(m, e.Fleet); err != nil {
			return Verified[T]{}, err
		}
	}
	return v, nil
}

// acceptedWith finishes a manifest with the bytes of the fleet document that
// completed it; nil: it was complete.
func acceptedWith(v *Verified[fleet.Manifest], completer []byte) error {
	if completer == nil {
		return finish(v, nil)
	}
	f, err := read[fleet.Fleet](completer)
	if err != nil {
		return err
	}
	return finish(v, &f)
}
