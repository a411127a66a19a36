package probe

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"nixfleet/internal/lifecycle"
)

const (
	maxParallel = 8
	keptResults = 50
	retryPause  = time.Second
)

// Result is a verdict of a probe at a time.
type Result struct {
	Name string         `json:"name"`
	Kind string         `json:"kind"`
	Mode lifecycle.Mode `json:"mode"`
	Verdict
	At       time.Time     `json:"at"` // when the check had ended
	Duration time.Duration `json:"durationNs"`
	// Grace marks a failure that does not count, because the probe has not passed
	// yet and its startup grace lasts. It is kept for people, and not reported.
	Grace bool `json:"grace,omitempty"`
}

// Scheduler runs the probes of one topology.
type Scheduler struct {
	probes []Probe
	report func(Result)

	mu      sync.Mutex
	history map[string][]Result // oldest first
}

// New makes a scheduler. report gets every result that counts, one at a time and
// in order for each probe; until it returns, no other result is taken. It has to
// return soon when the context of Run ends.
func New(t Topology, report func(Result)) *Scheduler {
	return &Scheduler{probes: t.Probes, report: report, history: map[string][]Result{}}
}

// History returns the last results of a probe, oldest first, at most 50. It may
// be called at any time.
func (s *Scheduler) History(name string) []Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.history[name])
}

// Run checks every probe that is not disabled at once and then in its interval,
// until the context ends and every check has returned. It may be called again
// after that: every run begins from the start, with grace and runOnce anew.
func (s *Scheduler) Run(ctx context.Context) {
	r := run{
		slots:   make(chan struct{}, maxParallel),
		results: make(chan Result), // a probe waits for its result to be taken
	}
	var probes sync.WaitGroup
	for _, p := range s.probes {
		if p.Mode != lifecycle.Disabled {
			probes.Go(func() { r.repeat(ctx, p) })
		}
	}
	go func() {
		probes.Wait()
		close(r.results)
	}()
	for result := range r.results {
		s.keep(result)
		if !result.Grace && ctx.Err() == nil {
			s.report(result)
		}
	}
	<-ctx.Done()
}

func (s *Scheduler) keep(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := append(s.history[r.Name], r)
	s.history[r.Name] = kept[max(0, len(kept)-keptResults):]
}

// run is what the probes of one Run share.
type run struct {
	slots   chan struct{} // one for each check under way
	results chan Result
}

// repeat runs one probe until the context ends, or it was to run once. A tick
// that comes while the probe is still busy is skipped, not made up for.
func (r run) repeat(ctx context.Context, p Probe) {
	started := time.Now()
	passed := false
	for tick := started; ; {
		began := time.Now()
		result, ok := r.check(ctx, p)
		if !ok {
			return
		}
		passed = passed || result.Status == lifecycle.Pass
		result.Grace = !passed && began.Sub(started) < p.Grace
		r.results <- result
		if p.RunOnce && !result.Grace {
			return
		}
		for !tick.After(time.Now()) {
			tick = tick.Add(jittered(p.Interval))
		}
		if !sleep(ctx, time.Until(tick)) {
			return
		}
	}
}

// check makes one check with its retries. It reports false when the context
// ended: what was found then says nothing about the host.
func (r run) check(ctx context.Context, p Probe) (Result, bool) {
	for retries := p.Retries; ; retries-- {
		result, ok := r.attempt(ctx, p)
		if !ok || result.Status == lifecycle.Pass || retries == 0 {
			return result, ok
		}
		if !sleep(ctx, retryPause) {
			return Result{}, false
		}
	}
}

func (r run) attempt(ctx context.Context, p Probe) (Result, bool) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return Result{}, false
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	verdict := p.Check(limited).bounded()
	if ctx.Err() != nil {
		return Result{}, false
	}
	at := time.Now()
	return Result{Name: p.Name, Kind: p.Kind, Mode: p.Mode, Verdict: verdict, At: at, Duration: at.Sub(began)}, true
}

// jittered spreads probes of the same interval: 10 % either way. No probe runs
// more often than about once a second.
func jittered(interval time.Duration) time.Duration {
	interval = max(interval, time.Second)
	return time.Duration((0.9 + 0.2*rand.Float64()) * float64(interval))
}

// sleep reports false when the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
