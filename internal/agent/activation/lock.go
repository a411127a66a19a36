package activation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"nixfleet/internal/wire"
)

// lockPoll is how often a lock that is held is tried.
const lockPoll = 100 * time.Millisecond

// lockPatience is how long the guard is waited for before the wait is told.
const lockPatience = 5 * time.Second

// Held is the activation lock, held. The kernel frees it when its holder dies.
type Held struct{ file *os.File } // nil: somebody above holds it

// Lock takes the file that keeps agent and guard from changing the machine at
// once. The file stays when the lock is released. Without a path nothing is
// locked: the caller has seen to that.
func Lock(ctx context.Context, path string) (*Held, error) {
	if path == "" {
		return &Held{}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, transient(ctx, "open the activation lock", err)
	}
	for waited := time.Duration(0); ; waited += lockPoll {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return &Held{f}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close() // nothing was written
			return nil, transient(ctx, "take the activation lock", err)
		}
		if waited >= lockPatience {
			f.Close() // nothing was written
			return nil, &Wait{On: wire.WaitingOnSwitchLock, Err: errors.New("another process of nixfleet changes this machine")}
		}
		if err := sleep(ctx, lockPoll); err != nil {
			f.Close() // nothing was written
			return nil, fmt.Errorf("take the activation lock: %w", err)
		}
	}
}

// Release frees the lock.
func (h *Held) Release() {
	if h.file == nil {
		return
	}
	h.file.Close() // frees it, and nothing was written
}

// sleep returns early, with ctx's error, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
