package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/guard"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/nix"
	"nixfleet/internal/wire"
)

func (a *Agent) guardFiles() guard.Files { return guard.FilesOf(a.machine, a.cfg.StateDir) }

const (
	// guardTries is how often a guard is started before a switch is given up.
	guardTries = 2
	// guardStart is how long a guard may take to begin to watch.
	guardStart = 10 * time.Second
)

// keepGuard arms the guard of a rollout and keeps it armed. It shows that the
// agent lives only while the reducer answers.
func (a *Agent) keepGuard(ctx context.Context, e *entry, g lifecycle.Guard) error {
	lease := a.leaseOf(e, g)
	for {
		err := a.reducer.submit(ctx, "sign of life", func(*turn) error { return nil })
		if err == nil {
			err = a.arm(ctx, lease)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Error("the guard is not armed", "rollout", lease.Rollout, "err", err)
		}
		if !sleep(ctx, lease.Beat()) {
			return nil
		}
	}
}

// armSwitch arms the guard of a rollout whose switch is next. Without a guard
// nothing is switched: the body says so. What was begun already goes on.
func (a *Agent) armSwitch(ctx context.Context, e *entry) (lifecycle.Body, error) {
	g := lifecycle.Want(e.Host).Guard
	if g == nil {
		return nil, nil
	}
	lease := a.leaseOf(e, *g)
	var err error
	for range guardTries {
		if err = a.arm(ctx, lease); err == nil || ctx.Err() != nil {
			return nil, err
		}
		a.log.Error("the guard is not armed", "rollout", lease.Rollout, "err", err)
	}
	mark, recallErr := a.Recall(ctx, e.Host.Rollout, activation.StepSwitch)
	if recallErr != nil || mark.BootID == lease.BootID {
		return nil, recallErr
	}
	text := fmt.Sprintf("no guard could be started, so the switch was not begun: %v", err)
	return lifecycle.ActivationFailed{ExitCode: -1, StderrTail: host.Tail([]byte(text)), Phase: lifecycle.PhasePreflight}, nil
}

// leaseOf is what the state of a rollout wants guarded. The program that guards is
// that of the lease that is there: it was prior's agent that wrote it first.
func (a *Agent) leaseOf(e *entry, g lifecycle.Guard) guard.Lease {
	lease := guard.Lease{
		Rollout:       e.Host.Rollout,
		Target:        g.Target,
		Prior:         g.Prior,
		Agent:         a.cfg.Guard[0],
		BootID:        a.reducer.view().facts.BootID,
		ConfirmActive: g.ConfirmBy,
		WindowSecs:    g.WindowSecs,
		AliveSecs:     g.AliveSecs,
		Confirmed:     g.Confirmed,
		DeferOn:       strings.Join(a.cfg.DeferOn, ","),
		NextBoot:      g.BootOnly,
	}
	if g.ConfirmBy > 0 {
		left := time.Duration(g.ConfirmBy-e.active(time.Now())) * time.Second
		lease.ConfirmBy = int64(a.machine.Clock() + left)
	}
	if files := a.guardFiles(); files.Held() && exists(files.Program()) {
		lease.Agent = files.Program()
	}
	return lease
}

// arm shows that the agent lives, writes the lease, and makes sure that a guard
// watches. While something is guarded an agent that has just started does not
// show that it lives yet: one that dies again and again must not keep its guard
// waiting.
func (a *Agent) arm(ctx context.Context, lease guard.Lease) error {
	return a.guardWork(ctx, func() error {
		files := a.guardFiles()
		if !files.Held() || time.Since(a.started) >= lease.Beat() {
			if err := files.Touch(a.machine.Clock()); err != nil {
				return fmt.Errorf("show that the agent lives: %w", err)
			}
		}
		if err := files.Write(lease); err != nil {
			return err
		}
		if lease.NextBoot {
			return nil
		}
		return a.startGuard(ctx, files, lease)
	})
}

// guardWork is done by one worker at a time.
func (a *Agent) guardWork(ctx context.Context, do func() error) error {
	select {
	case a.guardTurn <- struct{}{}:
		defer func() { <-a.guardTurn }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startGuard starts a guard where none runs, and waits until it watches.
func (a *Agent) startGuard(ctx context.Context, files guard.Files, lease guard.Lease) error {
	run, err := a.machine.Status(ctx, host.SlotGuard)
	if err != nil {
		return err
	}
	if run.Phase != host.RunRunning {
		if err := a.launchGuard(ctx, lease); err != nil {
			return err
		}
		crashpoint.Here("agent/guard-started", "the guard's unit was started; it was not seen to watch")
	}
	for waited := time.Duration(0); !files.Watched(); waited += host.Poll {
		if waited >= guardStart {
			return errors.New("the guard was started, but does not watch")
		}
		if !sleep(ctx, host.Poll) {
			return ctx.Err()
		}
	}
	return nil
}

// launchGuard starts a guard in the place of one that does not run any more.
func (a *Agent) launchGuard(ctx context.Context, lease guard.Lease) error {
	if err := a.machine.Clear(ctx, host.SlotGuard); err != nil {
		return err
	}
	return a.machine.StartGuard(ctx, host.GuardUnit{Program: lease.Agent, Args: a.cfg.Guard[1:], StateDir: a.cfg.StateDir})
}

// dropGuard ends the guarding: nothing is owed that a guard could do. A guard that
// acts at this moment is waited for.
func (a *Agent) dropGuard(ctx context.Context) error {
	_, err := a.persevere(ctx, "guard", hurrying, func(ctx context.Context) (lifecycle.Body, error) {
		return nil, a.guardWork(ctx, func() error {
			files := a.guardFiles()
			if !files.Held() {
				return nil
			}
			held, err := activation.Lock(ctx, a.cfg.activationLockFile())
			if err != nil {
				return err
			}
			defer held.Release()
			if err := files.Remove(); err != nil {
				return &activation.Wait{On: wire.WaitingOnNone, Err: err}
			}
			crashpoint.Here("agent/lease-removed", "the lease is gone; the guard's unit is still there")
			return a.machine.Clear(ctx, host.SlotGuard)
		})
	})
	return err
}

// programs are the store paths of the agents that are needed: this one, and the
// one that guards.
func (a *Agent) programs() []fleet.Closure {
	var paths []fleet.Closure
	for _, program := range []string{a.cfg.Guard[0], a.guardFiles().Program()} {
		rest, ok := strings.CutPrefix(program, nix.StoreDir+"/")
		base, _, _ := strings.Cut(rest, "/")
		if ok && nix.CheckBase(base) == nil {
			paths = append(paths, fleet.Closure(base))
		}
	}
	return paths
}

// awaitGuard waits for a guard that is at work: the system that it goes back to
// may start the agent before all is done. One that died in its work is finished by
// another, because what it has done and not told looks like somebody else's doing.
func (a *Agent) awaitGuard(ctx context.Context) error {
	for starts := 0; a.guardFiles().Claimed(); {
		held, err := activation.Lock(ctx, a.cfg.activationLockFile())
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			held.Release()
			if !a.finishGuard(ctx, &starts) || !sleep(ctx, host.Poll) {
				return nil
			}
			continue
		}
		if !errors.As(err, new(*activation.Wait)) {
			return err
		}
		a.log.Info("a guard is at work", "err", err)
		a.cfg.Notify("WATCHDOG=1")
	}
	return nil
}

// finishGuard starts a guard where none works on the claimed lease, and tells
// whether one does then. It stops this agent. It is not there to wait for when its
// rollout wants none, or when it dies again and again.
func (a *Agent) finishGuard(ctx context.Context, starts *int) bool {
	lease, err := a.guardFiles().Lease()
	if err == nil && lease == nil {
		return true // it has just ended
	}
	var run host.Run
	if err == nil {
		if e := a.reducer.view().find(lease.Rollout); e == nil || lifecycle.Want(e.Host).Guard == nil {
			return false
		}
		run, err = a.machine.Status(ctx, host.SlotGuard)
	}
	if err == nil && run.Phase != host.RunRunning {
		if *starts == guardTries {
			err = errors.New("it dies again and again")
		} else {
			*starts++
			err = a.launchGuard(ctx, *lease)
		}
	}
	if err != nil {
		a.log.Error("what a guard began is not finished by another", "err", err)
	}
	return err == nil
}

// tellGuardActed commits what a guard did while there was no agent, and says
// whether one did something.
func (r *reducer) tellGuardActed(files guard.Files) (acted bool, err error) {
	o, err := files.Outcome()
	if err != nil {
		r.log.Error("what the guard did is not known; the machine will tell", "err", err)
	}
	if o == nil {
		return false, nil
	}
	detail := fmt.Sprintf("at %s the guard went back to %s: %s", o.At.Format(time.RFC3339), o.Prior, o.Why)
	r.log.Warn("the guard has acted", "rollout", o.Rollout, "prior", string(o.Prior), "why", o.Why)
	t := r.begin()
	if e := t.next.find(o.Rollout); e != nil {
		for _, body := range lifecycle.GuardActed(e.Host, detail) {
			if err := t.event(o.Rollout, body); err != nil {
				r.log.Error("what the guard did was refused", "err", err)
			}
		}
	} else if err := t.notice(lifecycle.Notice{Code: lifecycle.NoticeGuardActed, Detail: detail}); err != nil {
		return true, fmt.Errorf("tell what the guard did: %w", err)
	}
	if err := r.commit(t); err != nil {
		return true, err
	}
	crashpoint.Here("agent/guard-outcome-committed", "what the guard did is committed; its file is still there")
	return true, files.ForgetOutcome()
}
