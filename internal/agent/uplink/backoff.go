package uplink

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"time"

	"nixfleet/internal/wire"
)

// The bounds of a backoff.
const (
	MinBackoff = time.Second
	MaxBackoff = 5 * time.Minute

	// MaxRetryAfter is the longest that a control plane can ask to be left alone:
	// one that was broken into must not have silenced hosts for longer.
	MaxRetryAfter = time.Hour
)

// Backoff spreads repeated attempts: a random time up to a limit that doubles
// from MinBackoff to MaxBackoff, so that a fleet whose control plane comes back
// does not come back in one instant. The zero value is ready.
type Backoff struct {
	Max time.Duration // 0 means MaxBackoff

	failures int
}

// Next is how long to wait after an attempt that failed with err. A time that
// the control plane asked for is honoured, and spread by a tenth.
func (b *Backoff) Next(err error) time.Duration {
	limit := cmp.Or(b.Max, MaxBackoff)
	if b.failures < 9 { // 1 s << 9 is beyond any maximum
		limit = min(MinBackoff<<b.failures, limit)
	}
	b.failures++
	var answer *wire.Error
	if errors.As(err, &answer) && answer.RetryAfter > 0 {
		return answer.RetryAfter + rand.N(answer.RetryAfter/10+1)
	}
	return rand.N(limit) + 1
}

// Reset follows an attempt that succeeded.
func (b *Backoff) Reset() { b.failures = 0 }
