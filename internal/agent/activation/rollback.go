package activation

import (
	"context"
	"fmt"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/lifecycle"
)

// Rollback takes the machine back to the exact prior closure: first prior boots,
// so that from then on a power cut leads there, then it is made live, by its own
// program. Each part is done only when the machine shows that it is owed, so a
// rollback that was interrupted goes on from where it was.
//
// A boot default that cannot be set does not keep prior from being made live: a
// machine that is cut off needs that more. It is a failed rollback all the same.
// So is a prior that may not be swapped in while the system runs: it boots, and
// only a boot brings it back.
func Rollback(ctx context.Context, m host.Machine, s Spec, rec Recorder) (lifecycle.Body, error) {
	held, err := Lock(ctx, s.LockFile)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	crashpoint.Here("activation/rollback-begun", "a rollback is owed; nothing of it is done")
	unclean, err := stopSwitch(ctx, m, s, rec, facts.BootID)
	if err != nil {
		return nil, err
	}
	if facts, err = look(ctx, m, s.Target, s.Prior); err != nil { // what was stopped may have moved it
		return nil, transient(ctx, "look at the machine", err)
	}
	var exit int
	var bootFailure *stepFailure
	if !bootsAlready(facts, s.Prior) {
		var done defaulted
		done, bootFailure, err = makeDefault(ctx, m, s, s.Prior, true)
		if err != nil {
			return nil, err
		}
		exit = done.exit
		if bootFailure == nil {
			crashpoint.Here("activation/rollback-boots", "prior is the boot default; it was not made live")
		}
	}
	inhibited, err := inhibitors(m, facts.Current, s.Prior, s.DeferOn)
	if err != nil {
		return nil, transient(ctx, "look for inhibitors", err)
	}
	var run host.Run
	if len(inhibited) == 0 {
		if run, err = goLive(ctx, m, s, facts, unclean); err != nil {
			return nil, err
		}
	}
	if run.Phase == host.RunEnded {
		exit = run.ExitCode
	}
	if bootFailure != nil {
		return lifecycle.RollbackFailed{Phase: bootFailure.phase, ExitCode: bootFailure.exit, StderrTail: host.Tail([]byte(bootFailure.text))}, nil
	}
	if len(inhibited) > 0 {
		return lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, ExitCode: exit, StderrTail: bootedOnly(inhibited), BootRequired: true}, nil
	}
	return judgeRollback(ctx, m, s, run, exit)
}

// BootPrior makes prior the boot default and leaves what runs as it is: for a
// machine in which nothing can be made live, or on which a target was only staged.
// It returns nil when prior boots.
func BootPrior(ctx context.Context, m host.Machine, s Spec) (lifecycle.Body, error) {
	held, err := Lock(ctx, s.LockFile)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	if bootsAlready(facts, s.Prior) {
		return nil, nil
	}
	_, failed, err := makeDefault(ctx, m, s, s.Prior, true)
	switch {
	case err != nil:
		return nil, err
	case failed == nil:
		crashpoint.Here("activation/unstaged", "prior is the boot default again; nothing is committed about it")
		return nil, nil
	}
	return lifecycle.RollbackFailed{Phase: failed.phase, ExitCode: failed.exit, StderrTail: host.Tail([]byte(failed.text))}, nil
}

// stopSwitch stops a switch that still runs, and tells whether one in this boot
// ended otherwise than well: then services may be down although the current
// system never moved.
func stopSwitch(ctx context.Context, m host.Machine, s Spec, rec Recorder, bootID string) (unclean bool, err error) {
	mark, err := recallSwitch(ctx, m, s, rec, bootID) // records a run that was not: clearing it must not make it forgotten
	if err != nil || mark.RunID == "" {
		return false, err
	}
	run, err := m.Status(ctx, host.SlotSwitch)
	if err != nil {
		return false, transient(ctx, "look at "+string(host.SlotSwitch), err)
	}
	if run.Phase == host.RunRunning {
		if err := m.Clear(ctx, host.SlotSwitch); err != nil {
			return false, transient(ctx, "stop "+string(host.SlotSwitch), err)
		}
		crashpoint.Here("activation/switch-stopped", "the unit of the switch was killed in the middle; nothing of the rollback is done")
	}
	return run.ID != mark.RunID || !endedWell(run) && !refused(run), nil
}

// goLive makes prior live when something else is, or when a switch that did not
// end well left things half done. The run is absent when nothing had to be run.
func goLive(ctx context.Context, m host.Machine, s Spec, facts host.Facts, unclean bool) (host.Run, error) {
	last, err := m.Status(ctx, host.SlotRollback)
	if err != nil {
		return host.Run{}, transient(ctx, "look at "+string(host.SlotRollback), err)
	}
	if last.Phase == host.RunRunning { // of an earlier agent
		id := last.ID
		if last, err = await(ctx, m, host.SlotRollback, id); err != nil {
			return host.Run{}, err
		}
		if facts, err = look(ctx, m, s.Target, s.Prior); err != nil {
			return host.Run{}, transient(ctx, "look at the machine", err)
		}
	}
	ours := last.Phase == host.RunEnded && last.Rollout == s.Rollout && last.Closure == s.Prior
	if Base(m, facts.Current, s.Prior) == s.Prior {
		if ours && endedWell(last) {
			return last, nil
		}
		if !unclean {
			return host.Run{}, nil
		}
	}
	id, err := start(ctx, m, host.SlotRollback, host.Command{Rollout: s.Rollout, Closure: s.Prior, Action: host.ActionTest, Timeout: SwitchTimeout, Alone: s.Alone})
	if err != nil {
		return host.Run{}, err
	}
	crashpoint.Here("activation/rollback-started", "prior is the boot default, and the unit that makes it live runs")
	run, err := await(ctx, m, host.SlotRollback, id)
	if err != nil {
		return host.Run{}, err
	}
	crashpoint.Here("activation/rollback-ended", "prior boots, and the unit that makes it live has ended; no outcome is committed")
	if didNotBegin(run) {
		return host.Run{}, waitForLock()
	}
	return run, nil
}

// judgeRollback looks at the machine: prior runs, and boots, or it failed.
func judgeRollback(ctx context.Context, m host.Machine, s Spec, run host.Run, exit int) (lifecycle.Body, error) {
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	current := Base(m, facts.Current, s.Prior)
	switch {
	case current == s.Prior && facts.Profile == s.Prior && leadsTo(facts, s.Prior):
		return lifecycle.RollbackComplete{RevertedToClosure: s.Prior, ExitCode: exit}, nil
	case current == s.Prior:
		return lifecycle.RollbackFailed{
			Phase:      lifecycle.PhaseReadback,
			ExitCode:   exit,
			StderrTail: account(run, fmt.Sprintf("it runs, but %s boots and %s is the profile", named(facts.BootDefault), named(facts.Profile))),
		}, nil
	case run.Exited(exitDone), run.Exited(exitFailedUnits):
		return lifecycle.RollbackFailed{
			Phase:      lifecycle.PhaseObserve,
			ExitCode:   exit,
			StderrTail: account(run, fmt.Sprintf("the program ended, but %s runs", named(current))),
		}, nil
	}
	return lifecycle.RollbackFailed{
		Phase:        lifecycle.PhaseSwitch,
		ExitCode:     exitCode(run),
		StderrTail:   account(run, fmt.Sprintf("%s runs", named(current))),
		BootRequired: run.Exited(exitRefused) || run.Exited(exitNeedsReboot),
	}, nil
}
