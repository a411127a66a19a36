package agent

import (
	"context"
	"sync"
)

// latch is a gate that is opened once.
type latch struct {
	once   *sync.Once
	opened chan struct{}
}

func newLatch() latch { return latch{once: new(sync.Once), opened: make(chan struct{})} }

func (l latch) open() { l.once.Do(func() { close(l.opened) }) }

func (l latch) wait(ctx context.Context) error {
	select {
	case <-l.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
