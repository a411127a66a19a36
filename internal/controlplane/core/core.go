// Package core is the control plane's single writer.
//
// One goroutine owns all state. What happens outside (events, heartbeats, polls,
// documents, enrolments, operators' actions, time) reaches it as inputs. It
// promises:
//
//  1. Waiting inputs are taken together, applied through the pure packages
//     lifecycle and rollout, and committed in one transaction.
//  2. Nobody is answered before that commit. When it fails, everybody in the
//     batch is told ErrUnavailable, and the state is read again from the store,
//     so that nothing that is not on disk is ever relied on or shown.
//  3. Every change of state is a record in the log, and the state is what the
//     records fold to, by one function: a rebuild gives the same state.
//  4. An order is handed out after the transaction that recorded its delivery.
//
// It needs from its caller: verified documents, and requests whose certificate
// was checked. It never answers a network peer itself, never reads a file, and
// never blocks on anything but the store.
package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"nixfleet/internal/controlplane/metrics"
	"nixfleet/internal/controlplane/store"
)

// ErrUnavailable: the store did not take the batch, or the core has stopped. The
// same request may be made again.
var ErrUnavailable = errors.New("the control plane cannot store anything at the moment")

const (
	// planEvery is how often time alone is planned for.
	planEvery = 15 * time.Second
	// planShare bounds what planning may take: after a plan of 10 ms the next one
	// is at least 20 ms away, so that a busy fleet's events are stored meanwhile.
	planShare = 2
	// maxBatch bounds one transaction, and with it how long its first input waits.
	maxBatch = 1024
	// seenEvery is how often a host's heartbeat is written down at most.
	seenEvery = 30 * time.Second
	// maxReadyStep is the most that one look at the clock adds to the ready time:
	// a process that was stopped or suspended heard nobody meanwhile.
	maxReadyStep = 2 * planEvery
)

// Options are what a Core is made of. All are required.
type Options struct {
	Store         store.Store
	Log           *slog.Logger
	Metrics       *metrics.Metrics
	NextHeartbeat time.Duration // what hosts are told
}

// Core is the single writer. Its methods may be called from anywhere; they
// return when the core has committed what they asked for.
type Core struct {
	Options

	inputs  chan *input
	stopped chan struct{}

	docs   atomic.Pointer[Documents]
	health atomic.Pointer[Health]

	// What follows belongs to the goroutine of Run.
	state    *state
	waiters  map[string]*waiter
	logID    int64     // of the newest record
	planned  time.Time // when the last plan began
	planCost time.Duration
	planDue  bool // something happened that a plan may matter for
	ticked   time.Time
	offered  time.Time // when all who wait were last offered their orders again
}

// Health is what the core last knew about itself.
type Health struct {
	PlannedAt time.Time // of the last plan that was committed
	Documents bool      // a fleet has been verified
}

// input is one thing for the core to do.
type input struct {
	apply func(*batch)
	taken atomic.Bool // by the core, or back by whoever gave it
	done  chan error  // takes one value, after the commit
}

// New reads the state from the store. Call Run next.
func New(ctx context.Context, o Options) (*Core, error) {
	c := &Core{
		Options: o,
		// As many as a batch may have: more would only wait here instead of in
		// the requests' own goroutines.
		inputs:  make(chan *input, maxBatch),
		stopped: make(chan struct{}),
		waiters: map[string]*waiter{},
	}
	c.health.Store(&Health{})
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// load makes the state what the store has.
func (c *Core) load(ctx context.Context) error {
	s, err := load(ctx, c.Store)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	head, err := c.Store.Head(ctx)
	if err != nil {
		return err
	}
	c.state, c.logID = s, head
	for host := range c.waiters {
		s.machine(host).Parked = true
	}
	c.docs.Store(s.documents())
	return nil
}

// Run does the work until the context ends. Inputs that were taken by then are
// committed and answered; later ones get ErrUnavailable.
func (c *Core) Run(ctx context.Context) {
	defer close(c.stopped)
	// The batch under way is finished even when the context has ended.
	work := context.WithoutCancel(ctx)
	c.ticked = time.Now()
	c.planDue = true
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			c.turn(work, c.gather(nil))
			c.leave(work)
			return
		case in := <-c.inputs:
			c.turn(work, c.gather(in))
		case <-timer.C:
		}
		c.tick()
		if wait := c.untilPlan(); wait > 0 {
			timer.Reset(wait)
		} else {
			c.plan(work)
			c.reofferAll()
			timer.Reset(c.untilPlan())
		}
	}
}

// leave writes down what was only in memory.
func (c *Core) leave(ctx context.Context) {
	c.tick()
	b := c.begin()
	b.state.dirty.world = true
	for host, m := range b.state.machines {
		if m.SeenAt.After(m.written) {
			b.state.dirty.machines[host] = true
		}
	}
	// The failure is logged; what is lost is what a crash would lose.
	_ = c.commit(ctx, b)
}

// untilPlan is how long until a plan is due.
func (c *Core) untilPlan() time.Duration {
	next := c.planned.Add(planEvery)
	if c.planDue {
		next = c.planned.Add(c.planCost * planShare)
	}
	return time.Until(next)
}

// tick counts the time in which hosts could be heard.
func (c *Core) tick() {
	now := time.Now()
	c.state.world.Ready += min(now.Sub(c.ticked), maxReadyStep)
	c.ticked = now
}

// gather takes what waits, up to a batch.
func (c *Core) gather(first *input) []*input {
	var all []*input
	if first != nil {
		all = append(all, first)
	}
	for len(all) < maxBatch {
		select {
		case in := <-c.inputs:
			all = append(all, in)
		default:
			return all
		}
	}
	return all
}

// turn applies inputs, commits, and answers.
func (c *Core) turn(ctx context.Context, inputs []*input) {
	inputs = slices.DeleteFunc(inputs, func(in *input) bool { return in.taken.Swap(true) })
	if len(inputs) == 0 {
		return
	}
	b := c.begin()
	for _, in := range inputs {
		in.apply(b)
	}
	err := c.commit(ctx, b)
	for _, in := range inputs {
		in.done <- err
	}
}

// submit has the core run apply and waits for the commit. What apply sets counts
// only when submit returned nil. When the context ends before the core has taken
// it, apply is not run; once it is taken the commit is waited for, so that
// nothing of it happens after the return.
func (c *Core) submit(ctx context.Context, apply func(*batch)) error {
	in := &input{apply: apply, done: make(chan error, 1)}
	select {
	case c.inputs <- in:
	case <-c.stopped:
		return ErrUnavailable
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-in.done:
		return err
	case <-ctx.Done():
		if !in.taken.Swap(true) {
			return ctx.Err()
		}
		return <-in.done
	case <-c.stopped:
	}
	// The core answered everything that it took before it stopped.
	select {
	case err := <-in.done:
		return err
	default:
		return ErrUnavailable
	}
}

// view has the core run read between two batches.
func (c *Core) view(ctx context.Context, read func(*state)) error {
	return c.submit(ctx, func(b *batch) { b.after(func() { read(b.state) }) })
}

// Health tells how the core is, without waiting for it.
func (c *Core) Health() Health { return *c.health.Load() }
