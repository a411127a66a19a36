package wire

import (
	"fmt"
	"net/http"
	"time"
)

// Slug names an error for programs. Each has one HTTP status.
type Slug string

// The slugs, by status.
const (
	SlugBadRequest       Slug = "bad-request"
	SlugProtocolMissing  Slug = "protocol-missing" // no HeaderProtocol, or not an integer
	SlugBadCSR           Slug = "bad-csr"
	SlugBadToken         Slug = "bad-token" // malformed, another version, or not signed by the org root
	SlugNoCertificate    Slug = "no-certificate"
	SlugBadSecret        Slug = "bad-secret" // of a hook
	SlugForbidden        Slug = "forbidden"  // the identity has no right to this route or this host
	SlugTokenExpired     Slug = "token-expired"
	SlugTokenNotYet      Slug = "token-not-yet-valid"
	SlugNonceNotAllowed  Slug = "nonce-not-allowed"
	SlugNameMismatch     Slug = "name-mismatch"
	SlugKeyMismatch      Slug = "key-mismatch"
	SlugHostNotDeclared  Slug = "host-not-declared"
	SlugRevoked          Slug = "revoked"
	SlugExpired          Slug = "certificate-expired"
	SlugCertNotYet       Slug = "certificate-not-yet-valid"
	SlugNotFound         Slug = "not-found"
	SlugMethodNotAllowed Slug = "method-not-allowed"
	SlugConflict         Slug = "conflict" // on events: other bytes under a known seq; ExpectedSeq is set
	SlugGap              Slug = "gap"      // ExpectedSeq is set
	SlugNonceUsed        Slug = "nonce-used"
	SlugTooLarge         Slug = "too-large"
	SlugRefused          Slug = "refused" // by the lifecycle; the event has consumed its seq
	SlugBadSignature     Slug = "bad-signature"
	SlugMalformedEvent   Slug = "malformed-event"
	SlugProtocol         Slug = "unsupported-protocol"
	SlugTooMany          Slug = "too-many-requests"
	SlugInternal         Slug = "internal"
	SlugNoUpstream       Slug = "no-upstream-cache"
	SlugBadUpstream      Slug = "bad-upstream"
	SlugUnavailable      Slug = "unavailable" // not ready, not the leader, or stopping
	SlugNoSlot           Slug = "no-slot"     // an acknowledgement that needs a slot of a budget and got none
)

var statusOf = map[Slug]int{
	SlugBadRequest:       http.StatusBadRequest,
	SlugProtocolMissing:  http.StatusBadRequest,
	SlugBadCSR:           http.StatusBadRequest,
	SlugBadToken:         http.StatusUnauthorized,
	SlugNoCertificate:    http.StatusUnauthorized,
	SlugBadSecret:        http.StatusUnauthorized,
	SlugForbidden:        http.StatusForbidden,
	SlugTokenExpired:     http.StatusForbidden,
	SlugTokenNotYet:      http.StatusForbidden,
	SlugNonceNotAllowed:  http.StatusForbidden,
	SlugNameMismatch:     http.StatusForbidden,
	SlugKeyMismatch:      http.StatusForbidden,
	SlugHostNotDeclared:  http.StatusForbidden,
	SlugRevoked:          http.StatusForbidden,
	SlugExpired:          http.StatusForbidden,
	SlugCertNotYet:       http.StatusForbidden,
	SlugNotFound:         http.StatusNotFound,
	SlugMethodNotAllowed: http.StatusMethodNotAllowed,
	SlugConflict:         http.StatusConflict,
	SlugGap:              http.StatusConflict,
	SlugNonceUsed:        http.StatusConflict,
	SlugTooLarge:         http.StatusRequestEntityTooLarge,
	SlugRefused:          http.StatusUnprocessableEntity,
	SlugBadSignature:     http.StatusUnprocessableEntity,
	SlugMalformedEvent:   http.StatusUnprocessableEntity,
	SlugProtocol:         http.StatusUpgradeRequired,
	SlugTooMany:          http.StatusTooManyRequests,
	SlugInternal:         http.StatusInternalServerError,
	SlugNoUpstream:       http.StatusNotImplemented,
	SlugBadUpstream:      http.StatusBadGateway,
	SlugUnavailable:      http.StatusServiceUnavailable,
	SlugNoSlot:           http.StatusServiceUnavailable,
}

// Status is the HTTP status of the slug, 500 for one that is not known.
func (s Slug) Status() int {
	if code, ok := statusOf[s]; ok {
		return code
	}
	return http.StatusInternalServerError
}

// Error is the one error body, and as a Go error what a client got.
type Error struct {
	Slug   Slug   `json:"error"`
	Detail string `json:"detail"` // a sentence for people
	// ExpectedSeq goes with SlugGap and SlugConflict: the number that the next
	// event of this rollout must have.
	ExpectedSeq int64 `json:"expectedSeq,omitempty"`

	// Code is the HTTP status. A server leaves it 0 and sends Slug.Status(); a
	// client sets what it got, because something in between (a balancer) may
	// have answered without a slug.
	Code int `json:"-"`
	// RetryAfter is the header of that name, with 429 and 503.
	RetryAfter time.Duration `json:"-"`
}

// Errorf makes the error body of a slug.
func Errorf(slug Slug, format string, args ...any) *Error {
	return &Error{Slug: slug, Detail: fmt.Sprintf(format, args...)}
}

// Status is the HTTP status: the one that was received, else the slug's.
func (e *Error) Status() int {
	if e.Code != 0 {
		return e.Code
	}
	return e.Slug.Status()
}

// Error names the status, the slug and the detail.
func (e *Error) Error() string {
	switch {
	case e.Slug == "":
		return fmt.Sprintf("HTTP %d %s", e.Status(), e.Detail)
	case e.Detail == "":
		return fmt.Sprintf("HTTP %d %s", e.Status(), e.Slug)
	}
	return fmt.Sprintf("HTTP %d %s: %s", e.Status(), e.Slug, e.Detail)
}

// Temporary tells whether the same request may succeed later without anything
// being changed by a person.
func (e *Error) Temporary() bool {
	code := e.Status()
	return code >= 500 && code != http.StatusNotImplemented || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout
}
