package trust

import (
	"errors"
	"fmt"
	"time"
)

// Refusal is why a document was not taken, in one word: the same in rejects,
// metrics and logs. It is an error, so that errors.Is(err, ErrStale) decides.
type Refusal string

// The refusals, in the order of the checks that give them.
const (
	ErrMalformed         Refusal = "malformed"           // not a document: size, form, types, values
	ErrBadSignature      Refusal = "bad-signature"       // no key of the slot that is valid now made it
	ErrSchema            Refusal = "schema"              // a version that this program does not understand
	ErrNotSigned         Refusal = "not-signed"          // meta.signedAt is missing
	ErrFutureDated       Refusal = "future-dated"        // signed after now
	ErrRejectedBefore    Refusal = "rejected-before"     // signed before the slot's rejectBefore
	ErrStale             Refusal = "stale"               // older than its window
	ErrOlderThanAccepted Refusal = "older-than-accepted" // a newer one was accepted before
	ErrIncomplete        Refusal = "incomplete"          // a manifest without policy, and no fleet document to complete it
	ErrMismatch          Refusal = "mismatch"            // not the rollout, host or fleet that was asked for
	ErrRepublished       Refusal = "republished"         // another plan under a known rollout id
)

func (r Refusal) Error() string { return string(r) }

// Reason is the refusal's word, or "" when err is none.
func Reason(err error) string {
	var r Refusal
	if errors.As(err, &r) {
		return string(r)
	}
	return ""
}

// Error is a refusal with its numbers. Those that do not belong to the refusal
// are zero.
type Error struct {
	Refusal  Refusal
	Detail   string        // for people
	SignedAt time.Time     // of the document; from ErrFutureDated on
	Now      time.Time     // of the check: ErrBadSignature, ErrFutureDated, ErrStale
	Age      time.Duration // ErrStale
	Window   time.Duration // ErrStale
	Bound    time.Time     // rejectBefore for ErrRejectedBefore, the accepted date for ErrOlderThanAccepted
}

func (e *Error) Error() string { return string(e.Refusal) + ": " + e.Detail }

func (e *Error) Unwrap() error { return e.Refusal }

func refuse(r Refusal, format string, args ...any) *Error {
	return &Error{Refusal: r, Detail: fmt.Sprintf(format, args...)}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
