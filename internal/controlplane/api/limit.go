package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"nixfleet/internal/wire"
)

// maxLimited bounds how many strangers are remembered: beyond it all start anew.
const maxLimited = 10_000

// limiter bounds how often each of many may try.
type limiter struct {
	each  rate.Limit
	burst int

	mu  sync.Mutex
	who map[string]*rate.Limiter
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{each: rate.Limit(perSecond), burst: burst, who: map[string]*rate.Limiter{}}
}

func (l *limiter) admit(who string) error {
	l.mu.Lock()
	one := l.who[who]
	if one == nil {
		if len(l.who) >= maxLimited {
			clear(l.who)
		}
		one = rate.NewLimiter(l.each, l.burst)
		l.who[who] = one
	}
	l.mu.Unlock()
	if one.Allow() {
		return nil
	}
	e := wire.Errorf(wire.SlugTooMany, "too many tries of %s", who)
	e.RetryAfter = time.Duration(float64(time.Second) / float64(l.each))
	return e
}
