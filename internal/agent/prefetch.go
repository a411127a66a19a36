package agent

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/lifecycle"
)

// prefetch fetches the target of the newest rollout that the control plane names
// for this host, so that it is there when the order comes. One that is named later
// ends the fetch before, and so does its order. That is all: nothing is accepted, nothing is answered, and
// nobody is told that it waits.
func (a *Agent) prefetch(ctx context.Context) error {
	current, stop := "", func() {}
	defer func() { stop() }()
	for {
		changed := a.reducer.changed.wait() // taken before looking
		if a.reducer.view().find(current) != nil {
			stop() // the order has come, and with it the rollout's own fetch
		}
		select {
		case id := <-a.ahead:
			if id != current {
				stop()
				current, stop = id, a.startAhead(ctx, id)
			}
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// startAhead begins a fetch; stop ends it and waits until it has ended.
func (a *Agent) startAhead(ctx context.Context, id string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		worker := "prefetch " + id
		a.supervise(ctx, worker, func(ctx context.Context) error { a.persistAhead(ctx, worker, id); return nil })
	}()
	return func() {
		cancel()
		<-ended
	}
}

// persistAhead repeats a fetch until it has succeeded or cannot. All hosts of a
// channel hear of a rollout within one heartbeat, and do not all fetch at once.
func (a *Agent) persistAhead(ctx context.Context, worker, id string) {
	if !sleep(ctx, rand.N(a.cfg.PollInterval)) {
		return
	}
	backoff := uplink.Backoff{Max: patient}
	for {
		err := a.fetchAhead(ctx, id)
		if ctx.Err() != nil {
			return
		}
		var final *notAhead
		switch {
		case err == nil:
			a.log.Info("fetched ahead of the order", "rollout", id)
			return
		case errors.As(err, &final):
			a.log.Debug("not fetched ahead of the order", "worker", worker, "why", final.Error())
			return
		}
		a.log.Debug("a fetch ahead of the order did not succeed", "worker", worker, "err", err)
		if !sleep(ctx, backoff.Next(nil)) {
			return
		}
	}
}

// notAhead is why a target is left to its order.
type notAhead struct{ error }

// fetchAhead fetches the target that a manifest has for this host, if an order to go
// there would be followed now.
func (a *Agent) fetchAhead(ctx context.Context, id string) error {
	s := a.reducer.view()
	if !isRolloutID(id) || s.find(id) != nil || s.facts == nil {
		return &notAhead{errors.New("the rollout is accepted, or no rollout")}
	}
	p, err := a.fetchPlan(ctx, id)
	var refused *rejection
	if errors.As(err, &refused) {
		return &notAhead{err}
	}
	if err != nil {
		return err
	}
	h, err := lifecycle.New(a.cfg.MachineID, id, p.manifest.Doc(), p.manifest.PlanHash(), p.manifest.SignedAt())
	if err != nil {
		return &notAhead{err}
	}
	begin := func(t *turn) error { return t.beginAhead(h) }
	if err := a.reducer.submit(ctx, "prefetch "+id, begin); err != nil {
		return err
	}
	spec, err := a.spec(ctx, h)
	if err != nil {
		return err
	}
	err = activation.FetchAhead(ctx, a.machine, spec)
	var wait *activation.Wait
	if err != nil && ctx.Err() == nil && !errors.As(err, &wait) {
		return &notAhead{err}
	}
	return err
}

// beginAhead notes that the target is being fetched: from now on it survives a
// garbage collection, and the rollout's own fetch knows in which boot this one was.
func (t *turn) beginAhead(h lifecycle.Host) error {
	s := t.next
	if s.find(h.Rollout) != nil || s.facts == nil {
		return &notAhead{errors.New("the rollout was accepted meanwhile")}
	}
	if h.Target == s.facts.Current {
		return &notAhead{errors.New("the host runs it")}
	}
	if err := t.quarantined(h); err != nil {
		return &notAhead{err}
	}
	if begun := s.self.Ahead; begun != nil && begun.Rollout == h.Rollout {
		return nil // in this boot or another: then what is there is not to be believed
	}
	t.updateSelf(func(self *journal.Self) {
		self.Ahead = &journal.Ahead{Rollout: h.Rollout, Closure: h.Target, BootID: s.facts.BootID}
	})
	return nil
}

// wasFetchedAhead gives a rollout that is accepted the mark of the fetch that came
// before it.
func (e *entry) wasFetchedAhead(ahead *journal.Ahead) error {
	if ahead == nil || ahead.Rollout != e.Host.Rollout || ahead.Closure != e.Host.Target {
		return nil
	}
	mark, err := json.Marshal(activation.Mark{BootID: ahead.BootID})
	if err != nil {
		return err
	}
	e.Steps = map[string]json.RawMessage{string(activation.StepFetch): mark}
	return nil
}
