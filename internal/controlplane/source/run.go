package source

import (
	"context"
	"time"
)

// Run calls poll at once, then every interval and whenever woken, until the
// context ends. Polls that were asked for begin at least gap apart, so that
// nobody can wear the source out; however often one is asked for meanwhile, it
// comes once. A channel of size one is what wake needs.
func Run(ctx context.Context, interval, gap time.Duration, wake <-chan struct{}, poll func(context.Context)) {
	for ctx.Err() == nil {
		poll(ctx)
		earliest := time.After(gap)
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		case <-wake:
			select {
			case <-ctx.Done():
			case <-earliest:
			}
		}
	}
}
