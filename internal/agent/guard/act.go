package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/lifecycle"
)

const (
	// lockTries is how often the activation lock is asked for, a few seconds each
	// time. The agent is dead by then, or will never run its own code again.
	lockTries = 3

	// liveTries is how often prior is made live before a boot has to do it.
	liveTries = 2

	// interruptedLimit is less than a stopping unit has.
	interruptedLimit = 20 * time.Second

	firstPause = time.Second
	lastPause  = time.Minute
)

// act takes the machine back, unless the journal says that nobody wants that.
// Each part of it may be interrupted, and is found by the next guard.
func (g *guard) act(ctx context.Context, l Lease, why string) error {
	g.Log.Warn("guard: acting", "rollout", l.Rollout, "prior", string(l.Prior), "why", why)
	if err := g.Machine.StopAgent(ctx); err != nil && ctx.Err() == nil {
		g.Log.Error("guard: the agent cannot be stopped, and is not waited for", "err", err)
	}
	crashpoint.Here("guard/agent-stopped", "a guard has ended the agent; the lease is as it was")
	held := g.lock(ctx)
	defer held.Release()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	journaled, err := g.ReadJournal(ctx, g.files.journal(), l.Rollout)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		g.Log.Error("guard: the journal cannot be read", "err", err)
	case journaled.Known && !journaled.Wanted:
		g.Log.Warn("guard: the rollout wants no guard", "rollout", l.Rollout)
		return g.leave(ctx)
	}
	l.Why = why
	if err := g.files.claim(l); err != nil {
		return err
	}
	crashpoint.Here("guard/claimed", "the lease is claimed; nothing of the way back is done")
	if err := g.goBack(ctx, l, recorderOf(journaled, err == nil && journaled.Known, g.boot)); err != nil {
		return err
	}
	crashpoint.Here("guard/gone-back", "prior runs and boots; no outcome is written")
	if err := writeJSON(g.files.outcome(), Outcome{Rollout: l.Rollout, Prior: l.Prior, Why: why, At: time.Now().UTC().Truncate(time.Second)}); err != nil {
		return fmt.Errorf("write what was done: %w", err)
	}
	crashpoint.Here("guard/outcome-written", "the outcome is written; the lease is still claimed")
	g.Log.Warn("guard: prior runs and boots", "rollout", l.Rollout, "prior", string(l.Prior))
	return g.leave(ctx)
}

// leave hands the machine back to an agent.
func (g *guard) leave(ctx context.Context) error {
	if err := g.files.Remove(); err != nil {
		return err
	}
	crashpoint.Here("guard/left", "the claim is gone; the agent was not started")
	if err := g.Machine.StartAgent(ctx); err != nil {
		// There is nothing to guard any more, so trying again is not this program's.
		g.Log.Error("guard: the agent cannot be started", "err", err)
	}
	return nil
}

// lock takes the activation lock, and goes on without when that takes too long.
func (g *guard) lock(ctx context.Context) *activation.Held {
	for range lockTries {
		held, err := activation.Lock(ctx, g.files.lock())
		if err == nil {
			return held
		}
		g.Log.Error("guard: the activation lock", "err", err)
		if ctx.Err() != nil {
			break
		}
	}
	return &activation.Held{}
}

// goBack returns nil when prior runs and boots.
func (g *guard) goBack(ctx context.Context, l Lease, marks recorder) error {
	spec := activation.Spec{Rollout: l.Rollout, Target: l.Target, Prior: l.Prior, Alone: true}
	if l.DeferOn != "" {
		spec.DeferOn = strings.Split(l.DeferOn, ",")
	}
	pause := firstPause
	for failures := 0; ; {
		failed, err := g.once(ctx, spec, marks)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			g.Log.Info("guard: waiting", "err", err)
		case failed == nil:
			return nil
		default:
			failures++
			g.Log.Error("guard: prior is not reached yet", "phase", string(failed.Phase), "exitCode", failed.ExitCode, "output", failed.StderrTail)
			// Only what comes after the boot default can be finished by a boot.
			live := failed.Phase == lifecycle.PhaseSwitch || failed.Phase == lifecycle.PhaseObserve
			if live && (failed.BootRequired || failures >= liveTries) {
				g.reboot(ctx, &l)
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, lastPause)
	}
}

// once tries to go back. In a system in which nothing can be made live it makes
// prior boot, and says that a boot is required.
func (g *guard) once(ctx context.Context, spec activation.Spec, marks recorder) (*lifecycle.RollbackFailed, error) {
	state, err := g.Machine.SystemState(ctx)
	if err != nil {
		return nil, err
	}
	var body lifecycle.Body
	if state == host.SystemMaintenance {
		body, err = activation.BootPrior(ctx, g.Machine, spec)
		if body == nil && err == nil {
			body = lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, StderrTail: "the system is in maintenance", BootRequired: true}
		}
	} else {
		body, err = activation.Rollback(ctx, g.Machine, spec, marks)
	}
	if err != nil {
		return nil, err
	}
	if failed, ok := body.(lifecycle.RollbackFailed); ok {
		return &failed, nil
	}
	return nil, nil
}

// reboot asks for a boot, once: boots that do not lead to prior must not go on for
// ever. The claim is what the guard of that boot finds. One that was refused, as
// by somebody who blocks it, is asked for again.
func (g *guard) reboot(ctx context.Context, l *Lease) {
	if l.Rebooted {
		return
	}
	l.Rebooted = true
	err := g.files.claim(*l)
	if err == nil {
		g.Log.Warn("guard: rebooting into prior", "prior", string(l.Prior))
		err = g.Machine.Reboot(ctx)
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, host.ErrNotSupported) {
		return
	}
	g.Log.Error("guard: no boot", "err", err)
	l.Rebooted = false
	if err := g.files.claim(*l); err != nil {
		g.Log.Error("guard: no boot will be asked for again", "err", err)
	}
}

// interrupted is the end of a guard that was stopped while it acted. Unless the
// machine goes down an agent must live; it starts another guard, which goes on.
func (g *guard) interrupted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), interruptedLimit)
	defer cancel()
	g.Log.Warn("guard: stopped in the middle; the lease stays")
	state, err := g.Machine.SystemState(ctx)
	if err == nil && state != host.SystemStopping {
		err = g.Machine.StartAgent(ctx)
	}
	if err != nil {
		g.Log.Error("guard: the agent cannot be started", "err", err)
	}
}
