package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// step is one step of an activation, as the workers see it: a body to commit, or
// nil for "all is well", or an error.
type step func(ctx context.Context) (lifecycle.Body, error)

// The longest pauses between two attempts. Those of work that a deadline runs
// against are short.
const (
	patient  = uplink.MaxBackoff
	hurrying = 10 * time.Second
)

// persevere repeats a step until it has an outcome, with a growing pause while it
// can only wait. It gives the outcome, or ctx's error.
func (a *Agent) persevere(ctx context.Context, worker string, pause time.Duration, do step) (lifecycle.Body, error) {
	backoff := uplink.Backoff{Max: pause}
	defer a.waits.clear(worker)
	for {
		body, err := do(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			return body, nil
		}
		a.note(worker, err)
		if !sleep(ctx, backoff.Next(nil)) {
			return nil, ctx.Err()
		}
	}
}

// commit hands an outcome to the reducer until it is committed. What the state
// machine refuses is logged and dropped: the state has moved on.
func (a *Agent) commit(ctx context.Context, rollout string, body lifecycle.Body) error {
	var backoff uplink.Backoff
	for {
		err := a.reducer.submit(ctx, string(body.Kind())+" "+rollout, func(t *turn) error { return t.event(rollout, body) })
		var refused *lifecycle.Refused
		switch {
		case err == nil, ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused):
			a.log.Error("an outcome was refused", "rollout", rollout, "err", err)
			return nil
		}
		if !sleep(ctx, backoff.Next(nil)) {
			return ctx.Err()
		}
	}
}

// alone runs what changes the machine: one step at a time.
func (a *Agent) alone(ctx context.Context, do step) (lifecycle.Body, error) {
	select {
	case a.machineTurn <- struct{}{}:
		defer func() { <-a.machineTurn }()
		return do(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// spec is what the steps of a rollout's activation work from.
func (a *Agent) spec(ctx context.Context, h lifecycle.Host) (activation.Spec, error) {
	roots, err := a.roots(ctx)
	if err != nil {
		return activation.Spec{}, &activation.Wait{On: wire.WaitingOnNone, Err: err}
	}
	return activation.Spec{
		Rollout:         h.Rollout,
		Target:          h.Target,
		Prior:           h.Prior,
		Ran:             h.Ran,
		OnHealthFailure: h.Policy.OnHealthFailure,
		LockFile:        a.cfg.activationLockFile(),
		Caches:          a.cfg.CacheURLs,
		CacheKeys:       roots.CacheKeys,
		MinFreeStore:    a.cfg.MinFreeNix,
		MinFreeBoot:     a.cfg.MinFreeBoot,
		DeferOn:         a.cfg.DeferOn,
		Guarded:         h.Policy.Guard != fleet.GuardOptional,
		MaxFailedUnits:  h.Policy.MaxFailedUnits(),
		LastUplink:      a.uplink.LastAnswer,
		Progress:        a.fetching,
	}, nil
}

// with makes a step of one of activation's functions.
func (a *Agent) with(h lifecycle.Host, do func(ctx context.Context, s activation.Spec) (lifecycle.Body, error)) step {
	return func(ctx context.Context) (lifecycle.Body, error) {
		s, err := a.spec(ctx, h)
		if err != nil {
			return nil, err
		}
		return do(ctx, s)
	}
}

// prepare fetches and checks the target of the rollout that comes next, and then
// begins its activation when that may be.
func (a *Agent) prepare(ctx context.Context, e *entry) error {
	h := e.Host
	worker := "prepare " + h.Rollout
	fetched, err := a.persevere(ctx, worker, patient, a.with(h, func(ctx context.Context, s activation.Spec) (lifecycle.Body, error) {
		return activation.Fetch(ctx, a.machine, s, a)
	}))
	if err != nil || fetched != nil {
		return a.commitAny(ctx, h.Rollout, fetched, err)
	}
	for {
		failed, err := a.persevere(ctx, worker, patient, a.with(h, func(ctx context.Context, s activation.Spec) (lifecycle.Body, error) {
			a.askUplink(ctx)
			return activation.Preflight(ctx, a.machine, s)
		}))
		if err != nil || failed != nil {
			return a.commitAny(ctx, h.Rollout, failed, err)
		}
		if a.beginWithin(ctx, worker, h.Rollout, preflightHolds) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

const (
	// preflightHolds is how long the checks before a switch are good for.
	preflightHolds = 5 * time.Minute
	// beginEvery is how often a wait to begin is looked at without any news.
	beginEvery = 15 * time.Second
)

// beginWithin begins an activation as soon as it may be, and tells whether that
// was within the time.
func (a *Agent) beginWithin(ctx context.Context, worker, rollout string, limit time.Duration) bool {
	defer a.waits.clear(worker)
	for until := time.Now().Add(limit); time.Now().Before(until); {
		changed := a.reducer.changed.wait() // taken before looking
		_, err := a.alone(ctx, func(ctx context.Context) (lifecycle.Body, error) { return nil, a.begin(ctx, rollout) })
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		a.note(worker, err)
		timer := time.NewTimer(beginEvery)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return false
}

// note keeps what a worker waits for, and logs it when it is something else than
// before.
func (a *Agent) note(worker string, err error) {
	var wait *activation.Wait
	if !errors.As(err, &wait) {
		wait = &activation.Wait{On: wire.WaitingOnNone, Err: err}
	}
	if a.waits.set(worker, wait.On, wait.Err.Error()) {
		a.log.Info("waiting", "worker", worker, "on", string(wait.On), "why", wait.Err.Error())
	}
}

// askUplink makes sure that somebody was asked lately whether he answers, before
// it is judged whether somebody did.
func (a *Agent) askUplink(ctx context.Context) {
	if time.Since(a.uplink.LastAnswer()) > uplinkFresh {
		if err := a.uplink.Reach(ctx); err != nil {
			a.log.Debug("the control plane does not answer", "err", err)
		}
	}
}

// uplinkFresh is how old an answer may be to show without asking that the uplink
// works.
const uplinkFresh = 30 * time.Second

func (a *Agent) commitAny(ctx context.Context, rollout string, body lifecycle.Body, err error) error {
	if err != nil || body == nil {
		return err
	}
	return a.commit(ctx, rollout, body)
}

// begin asks the reducer to begin an activation. It runs while no other step
// does, so that no unit of ours is started meanwhile.
func (a *Agent) begin(ctx context.Context, rollout string) error {
	if err := a.noUnitRuns(ctx); err != nil {
		return err
	}
	facts, err := a.look(ctx)
	if err != nil {
		return err
	}
	method, err := a.method(ctx, rollout, facts)
	if err != nil {
		return err
	}
	var b beginning
	err = a.reducer.submit(ctx, "begin "+rollout, func(t *turn) (err error) {
		b, err = t.beginActivation(rollout, method, facts)
		return err
	})
	switch {
	case err != nil:
		return err
	case b.unstage != nil:
		return a.unstage(ctx, b)
	case b.wait != "":
		return &activation.Wait{On: b.on, Err: errors.New(b.wait)}
	}
	return nil
}

// method is how the rollout's target gets to run.
func (a *Agent) method(ctx context.Context, rollout string, facts host.Facts) (string, error) {
	e := a.reducer.view().find(rollout)
	if e == nil {
		return "", fmt.Errorf("begin %s: this host has no such rollout", rollout)
	}
	s, err := a.spec(ctx, e.Host)
	if err != nil {
		return "", err
	}
	return activation.Method(a.machine, facts.Current, s)
}

// unstage makes prior the boot default again, before a newer rollout begins.
func (a *Agent) unstage(ctx context.Context, b beginning) error {
	e := a.reducer.view().find(b.in)
	if e == nil {
		return fmt.Errorf("unstage %s: no such rollout", b.in)
	}
	_, err := a.with(e.Host, func(ctx context.Context, s activation.Spec) (lifecycle.Body, error) {
		return activation.BootPrior(ctx, a.machine, s)
	})(ctx)
	if err != nil {
		return err
	}
	return &activation.Wait{On: wire.WaitingOnSwitchLock, Err: errors.New("what was staged is taken back first")}
}

func (a *Agent) noUnitRuns(ctx context.Context) error {
	for _, slot := range []host.Slot{host.SlotSwitch, host.SlotBoot, host.SlotRollback} {
		run, err := a.machine.Status(ctx, slot)
		if err != nil {
			return err
		}
		if run.Phase == host.RunRunning {
			return &activation.Wait{On: wire.WaitingOnSwitchLock, Err: fmt.Errorf("%s still runs", slot)}
		}
	}
	return nil
}

// switchOver makes the target live, or stages it for the next boot.
func (a *Agent) switchOver(ctx context.Context, e *entry) error {
	h := e.Host
	if failed, err := a.armSwitch(ctx, e); failed != nil || err != nil {
		return a.commitAny(ctx, h.Rollout, failed, err)
	}
	body, err := a.persevere(ctx, "switch "+h.Rollout, hurrying, func(ctx context.Context) (lifecycle.Body, error) {
		return a.alone(ctx, a.with(h, func(ctx context.Context, s activation.Spec) (lifecycle.Body, error) {
			if h.SwitchMethod == lifecycle.MethodBoot {
				return activation.Stage(ctx, a.machine, s)
			}
			return activation.Switch(ctx, a.machine, s, a)
		}))
	})
	if err != nil {
		return err
	}
	if _, ok := body.(lifecycle.ActivationCompleted); ok {
		a.uplink.Reset() // a connection from before says nothing about the new system
	}
	return a.commit(ctx, h.Rollout, body)
}

// confirm reaches an uplink from the new system, over a new connection.
func (a *Agent) confirm(ctx context.Context, e *entry) error {
	h := e.Host
	body, err := a.persevere(ctx, "confirm "+h.Rollout, hurrying, func(ctx context.Context) (lifecycle.Body, error) {
		roots, err := a.roots(ctx)
		if err != nil {
			return nil, err
		}
		return activation.Confirm(ctx, a.machine, activation.Uplinks{
			ControlPlane: a.uplink.Reach,
			Caches:       a.cfg.CacheURLs,
			CacheKeys:    roots.CacheKeys,
			Closures:     []fleet.Closure{h.Target, h.Prior},
			URLs:         a.cfg.ConfirmURLs,
			Dial:         a.dial,
		})
	})
	return a.commitAny(ctx, h.Rollout, body, err)
}

// persist makes the target the boot default.
func (a *Agent) persist(ctx context.Context, e *entry) error {
	return a.untilDone(ctx, "persist "+e.Host.Rollout, e.Host, func(ctx context.Context, s activation.Spec) (lifecycle.Body, error) {
		return activation.Persist(ctx, a.machine, s)
	})
}

// rollBack takes the machine back to prior. What could not be sent over the
// network of the other system is then tried over prior's.
func (a *Agent) rollBack(ctx context.Context, e *entry) error {
	defer a.pollNow.tell()
	return a.untilDone(ctx, "rollback "+e.Host.Rollout, e.Host, func(ctx context.Context, s activation.Spec) (lifecycle.Body, error) {
		return activation.Rollback(ctx, a.machine, s, a)
	})
}

// reportAgain is how long the same failure of a step that is retried is not
// reported again: what is not worth sending is not committed.
const reportAgain = time.Hour

// untilDone repeats a step that must succeed. Its failures are committed when
// they are new.
func (a *Agent) untilDone(ctx context.Context, worker string, h lifecycle.Host, do func(ctx context.Context, s activation.Spec) (lifecycle.Body, error)) error {
	var backoff uplink.Backoff
	failures := 0
	var told failure
	var toldAt time.Time
	for {
		body, err := a.persevere(ctx, worker, hurrying, func(ctx context.Context) (lifecycle.Body, error) { return a.alone(ctx, a.with(h, do)) })
		if err != nil {
			return err
		}
		f, failed := failureOf(body)
		if !failed {
			return a.commit(ctx, h.Rollout, body)
		}
		failures++
		if failures <= 2 || f != told || time.Since(toldAt) > reportAgain {
			told, toldAt = f, time.Now()
			if err := a.commit(ctx, h.Rollout, body); err != nil {
				return err
			}
		}
		if !sleep(ctx, backoff.Next(nil)) {
			return ctx.Err()
		}
	}
}

// failure is what makes two failures of a retried step the same.
type failure struct {
	phase lifecycle.Phase
	exit  int
}

func failureOf(body lifecycle.Body) (failure, bool) {
	switch b := body.(type) {
	case lifecycle.PersistFailed:
		return failure{b.Phase, b.ExitCode}, true
	case lifecycle.RollbackFailed:
		return failure{b.Phase, b.ExitCode}, true
	}
	return failure{}, false
}

// reboot boots the machine when it may. One that has agreed and did not go down is
// asked again when the state wants that.
func (a *Agent) reboot(ctx context.Context, e *entry) error {
	rollout := e.Host.Rollout
	worker := "reboot " + rollout
	defer a.waits.clear(worker)
	for {
		e := a.reducer.view().find(rollout)
		if e == nil {
			return nil
		}
		r := lifecycle.Want(e.Host).Reboot
		if r == nil {
			return nil
		}
		if wait, on := untilReboot(*r, e.active(time.Now()), time.Now()); wait > 0 {
			a.waits.set(worker, on, "")
			if !sleep(ctx, min(wait, time.Minute)) { // in steps: the clock may be set meanwhile
				return ctx.Err()
			}
			continue
		}
		if err := a.commit(ctx, rollout, lifecycle.RebootStarted{Reason: r.Reason}); err != nil {
			return err
		}
		if _, err := a.persevere(ctx, worker, patient, func(ctx context.Context) (lifecycle.Body, error) {
			if r.Window != nil && untilWindow(*r.Window, time.Now()) > 0 {
				return nil, nil // it has closed over a machine that would not go down
			}
			return a.alone(ctx, func(ctx context.Context) (lifecycle.Body, error) { return nil, a.machine.Reboot(ctx) })
		}); err != nil {
			return err
		}
	}
}

// untilReboot is how long it is until the machine may boot, and what keeps it.
func untilReboot(r lifecycle.Reboot, active int64, now time.Time) (time.Duration, wire.WaitingOn) {
	again := time.Duration(max(0, r.NotBefore-active)) * time.Second
	if r.Window != nil {
		if wait := untilWindow(*r.Window, now); wait > again {
			return wait, wire.WaitingOnWindow
		}
	}
	return again, wire.WaitingOnReboot
}

// setRoots keeps closures from being collected.
func (a *Agent) setRoots(ctx context.Context, roots []fleet.Closure) error {
	_, err := a.persevere(ctx, "roots", patient, func(ctx context.Context) (lifecycle.Body, error) { return nil, a.machine.SetRoots(ctx, roots) })
	return err
}

// Recall gives the mark that a step of an activation left. Agent is
// activation's Recorder.
func (a *Agent) Recall(_ context.Context, rollout string, s activation.Step) (activation.Mark, error) {
	var m activation.Mark
	e := a.reducer.view().find(rollout)
	if e == nil || e.Steps[string(s)] == nil {
		return m, nil
	}
	if err := json.Unmarshal(e.Steps[string(s)], &m); err != nil {
		return m, fmt.Errorf("recall the step %s of %s: %w", s, rollout, err)
	}
	return m, nil
}

// Record keeps a step's mark, durably.
func (a *Agent) Record(ctx context.Context, rollout string, s activation.Step, m activation.Mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return a.reducer.submit(ctx, "mark of "+string(s), func(t *turn) error {
		if t.next.find(rollout) == nil {
			return fmt.Errorf("record the step %s: this host has no rollout %s", s, rollout)
		}
		t.update(rollout, func(e *entry) {
			e.Steps = maps.Clone(e.Steps)
			if e.Steps == nil {
				e.Steps = map[string]json.RawMessage{}
			}
			e.Steps[string(s)] = raw
		})
		return nil
	})
}

// sleep waits, and tells whether it was not interrupted.
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
