package agent

import (
	"context"
	"errors"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// observeEvery is how often the machine is looked at when nothing is due.
const observeEvery = 30 * time.Second

// observe looks at the machine when something is due and now and then, and hands
// what it saw to the reducer. It is also the reducer's timer: what time makes
// true is decided from an observation that is made for it.
func (a *Agent) observe(ctx context.Context) error {
	// The first look is due at once. From then on it is only ever brought forward:
	// a timer that is set again loses a tick that nobody has taken.
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	var suspended suspension
	for {
		select {
		case <-ctx.Done():
			return nil
		case wait := <-a.reducer.wake:
			next := time.Now().Add(observeEvery)
			if wait > 0 && wait < observeEvery {
				next = time.Now().Add(wait)
			}
			if next.Before(due) {
				due = next
				timer.Reset(time.Until(due))
			}
		case <-timer.C:
			due = time.Now().Add(observeEvery)
			timer.Reset(observeEvery)
			changes := a.reducer.view().changes // taken before looking
			facts, err := a.look(ctx)
			if err != nil {
				a.log.Warn("the machine could not be looked at", "err", err)
				continue
			}
			if a.atStart != nil {
				// Before the look has its effects: then the machine is worked on.
				a.tellFound(a.find(ctx, *a.atStart, facts))
				a.atStart = nil
			}
			clock, resumed := a.clock(), suspended.since()
			err = a.reducer.submit(ctx, "observe the machine", func(t *turn) error { return t.observe(facts, changes, clock, resumed) })
			// Other errors were logged by the reducer; the next look comes anyway.
			if errors.Is(err, errOutdated) {
				timer.Reset(0)
			}
		}
	}
}

// errOutdated: the machine was looked at before something became known of it.
var errOutdated = errors.New("the observation is outdated")

// observe takes what the machine is, and lets it have its effects. changes is the
// count of events about the machine when it was looked at.
func (t *turn) observe(f host.Facts, changes int64, clock ClockState, resumed bool) error {
	if changes != t.next.changes {
		return errOutdated
	}
	t.look(f)
	t.observed = true
	t.observation.Resumed = resumed
	if floor, due := clock.floor(t.next.self.Marks); due {
		t.updateMarks(func(m *trust.Marks) { m.ClockFloor = floor })
	}
	t.saveLongRunning()
	return nil
}

// look looks at the machine as the rollouts under way see it: a specialisation of
// their systems is that system.
func (a *Agent) look(ctx context.Context) (host.Facts, error) {
	s := a.reducer.view()
	var known []fleet.Closure
	for _, e := range []*entry{s.live(), s.next()} {
		if e != nil {
			for _, c := range []fleet.Closure{e.Host.Target, e.Host.Prior, e.Host.Ran} {
				if c != "" {
					known = append(known, c)
				}
			}
		}
	}
	return activation.Observe(ctx, a.machine, known...)
}

// look makes an observation what this turn decides by.
func (t *turn) look(f host.Facts) {
	t.next.facts, t.next.factsAt = &f, t.now
	o := observed(f)
	t.observation = &o
}

// saveLongRunning saves running times that have not been saved for long.
func (t *turn) saveLongRunning() {
	for _, e := range t.next.rollouts {
		if !e.Host.Terminal() && e.active(t.now)-e.Active >= int64(saveEvery/time.Second) {
			t.update(e.Host.Rollout, func(*entry) {})
		}
	}
}
