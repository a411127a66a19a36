package dirhost

import (
	"context"
	"errors"
	"os"
	"sync"
)

// Functions runs units as calls of a Go function, for tests that live in virtual
// time, where nobody can wait for a process. Units end with this program.
type Functions struct {
	// Program stands in for every switch program: it does what u.Program with
	// u.Args and u.Env would do, and returns the exit code. It returns soon after
	// ctx ends.
	Program func(ctx context.Context, u Unit, out *os.File) int

	mu    sync.Mutex
	calls map[string]*call // by folder
}

type call struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Start calls the program in a goroutine, which Kill ends.
func (f *Functions) Start(u Unit) error {
	out, err := os.OpenFile(u.Dir+"/output", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &call{cancel: cancel, done: make(chan struct{})}
	f.mu.Lock()
	if f.calls == nil {
		f.calls = make(map[string]*call)
	}
	f.calls[u.Dir] = c
	f.mu.Unlock()
	go func() {
		defer close(c.done)
		defer cancel()
		code := f.Program(ctx, u, out)
		if out.Close() == nil && ctx.Err() == nil {
			// Not written, it is a unit whose end nobody saw.
			writeExit(u.Dir, "exit", code)
		}
	}()
	return nil
}

func (f *Functions) call(dir string) *call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[dir]
}

// Alive tells whether the call has not returned.
func (f *Functions) Alive(dir string) bool {
	c := f.call(dir)
	if c == nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// Kill cancels the call and waits for its return.
func (f *Functions) Kill(dir string, atOnce bool) error {
	c := f.call(dir)
	if c == nil {
		return nil
	}
	c.cancel()
	<-c.done
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[dir] == c {
		delete(f.calls, dir)
	}
	return nil
}

// Close kills whatever runs.
func (f *Functions) Close() error {
	f.mu.Lock()
	dirs := make([]string, 0, len(f.calls))
	for dir := range f.calls {
		dirs = append(dirs, dir)
	}
	f.mu.Unlock()
	var all error
	for _, dir := range dirs {
		all = errors.Join(all, f.Kill(dir, true))
	}
	return all
}
