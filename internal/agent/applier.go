package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// applier keeps what is under way on the machine equal to what is wanted: it
// starts, keeps and stops workers. What is wanted comes from the state alone, so
// whatever a crash interrupted is started again.
type applier struct {
	a     *Agent
	works map[string]*work // by key; only the applier's goroutine
	ended chan string      // keys of works whose goroutine ends now
}

// job is one piece of work that is wanted. Two jobs with the same key are the
// same work.
type job struct {
	key string
	run func(ctx context.Context) error
}

// work is a job that was started.
type work struct {
	cancel    context.CancelFunc
	cancelled bool // it is not wanted any more, and has not ended yet
	done      bool // it ended by itself: it is not started again as long as it stays wanted
}

// apply compares what is wanted with what runs, whenever one of them changed.
func (a *Agent) apply(ctx context.Context) error {
	p := &applier{a: a, works: map[string]*work{}, ended: make(chan string)}
	defer p.stop()
	for {
		changed := a.reducer.changed.wait() // taken before looking
		p.compare(ctx, a.wanted(a.reducer.view(), time.Now()))
		select {
		case <-changed:
		case key := <-p.ended:
			p.end(key)
		case <-ctx.Done():
			return nil
		}
	}
}

// compare stops what is not wanted and starts what is not there. Work that was
// stopped and is wanted again starts when its last run has ended.
func (p *applier) compare(ctx context.Context, wanted []job) {
	for key, w := range p.works {
		switch {
		case slices.ContainsFunc(wanted, func(j job) bool { return j.key == key }):
		case w.done:
			delete(p.works, key)
		default:
			w.cancelled = true
			w.cancel()
		}
	}
	for _, j := range wanted {
		if p.works[j.key] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		p.works[j.key] = &work{cancel: cancel}
		go func() {
			defer func() { p.ended <- j.key }()
			p.a.supervise(ctx, j.key, j.run)
		}()
	}
}

func (p *applier) end(key string) {
	w := p.works[key]
	w.cancel()
	w.done = true
	if w.cancelled {
		delete(p.works, key)
	}
	p.a.waits.clear(key)
}

// stop ends all works and waits for them. Units run on.
func (p *applier) stop() {
	running := 0
	for _, w := range p.works {
		if !w.done {
			w.cancel()
			running++
		}
	}
	for range running {
		<-p.ended
	}
}

// wanted is the work that a state wants. Fetching is wanted for the rollout that
// comes next, all else for the one that is live.
func (a *Agent) wanted(s *state, now time.Time) []job {
	if s.facts == nil {
		return nil // what the machine is decides what is wanted of it
	}
	var jobs []job
	var roots []fleet.Closure
	if e := s.next(); e != nil {
		w := lifecycle.Want(e.Host)
		roots = append(roots, w.Roots...)
		if w.Fetch != nil {
			jobs = append(jobs, job{"prepare " + e.Host.Rollout, func(ctx context.Context) error { return a.prepare(ctx, e) }})
		}
	}
	if ahead := s.self.Ahead; ahead != nil {
		roots = append(roots, ahead.Closure)
	}
	guarded := false
	if e := s.live(); e != nil {
		w := lifecycle.Want(e.Host)
		roots = append(roots, w.Roots...)
		jobs = append(jobs, a.wantedOfLive(e, w, now)...)
		if guarded = w.Guard != nil; guarded {
			key := fmt.Sprintf("guard %s %s %+v", e.Host.Rollout, s.facts.BootID, *w.Guard)
			jobs = append(jobs, job{key, func(ctx context.Context) error { return a.keepGuard(ctx, e, *w.Guard) }})
		}
	}
	if !guarded {
		jobs = append(jobs, job{"no guard", a.dropGuard})
	}
	if len(roots) > 0 {
		roots = append(roots, a.programs()...)
	}
	slices.Sort(roots)
	roots = slices.Compact(roots)
	return append(jobs, job{"roots " + join(roots), func(ctx context.Context) error { return a.setRoots(ctx, roots) }})
}

func (a *Agent) wantedOfLive(e *entry, w lifecycle.Work, now time.Time) []job {
	h := e.Host
	// A retry after a boot, and the way after it, are other work than before.
	name := func(work string) string { return fmt.Sprintf("%s %s %d", work, h.Rollout, h.StartedActive) }
	var jobs []job
	if w.Switch != nil {
		jobs = append(jobs, job{name("switch"), func(ctx context.Context) error { return a.switchOver(ctx, e) }})
	}
	if w.Probes {
		key := fmt.Sprintf("probes %s %d", h.Rollout, h.CompletedActive) // anew after every activation, and only then
		jobs = append(jobs, job{key, func(ctx context.Context) error { return a.probe(ctx, e) }})
	}
	if w.Confirm {
		jobs = append(jobs, job{name("confirm") + h.LiveBootID, func(ctx context.Context) error { return a.confirm(ctx, e) }})
	}
	if w.Persist != nil && e.active(now) >= w.Persist.NotBefore {
		jobs = append(jobs, job{name("persist"), func(ctx context.Context) error { return a.persist(ctx, e) }})
	}
	if w.Rollback != nil {
		jobs = append(jobs, job{name("rollback"), func(ctx context.Context) error { return a.rollBack(ctx, e) }})
	}
	if w.Reboot != nil {
		jobs = append(jobs, job{name("reboot"), func(ctx context.Context) error { return a.reboot(ctx, e) }})
	}
	return jobs
}

func join(closures []fleet.Closure) string {
	names := make([]string, len(closures))
	for i, c := range closures {
		names[i] = string(c)
	}
	return strings.Join(names, " ")
}
