package activation

import (
	"context"
	"fmt"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// Switch makes the target live, without making it the boot default. If the boot
// default is not prior, prior becomes it before anything else: from then on a
// power cut leads to prior. A target whose program refuses to be made live, and
// did nothing, is staged for the next boot.
//
// A switch that an earlier agent began is waited for. One that was recorded as
// started and is not there has ended, nobody saw how: if the target runs, its
// program is run once more, which is how it finishes what was left, and only
// then believed. Where somebody else has made a third system live since, nothing
// is begun or judged: that system stays.
func Switch(ctx context.Context, m host.Machine, s Spec, rec Recorder) (lifecycle.Body, error) {
	held, err := Lock(ctx, s.LockFile)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	mark, err := recallSwitch(ctx, m, s, rec, facts.BootID)
	if err != nil {
		return nil, err
	}
	if given, err := givenUp(ctx, m, s, mark.RunID); given != nil || err != nil {
		return given, err
	}
	if mark.RunID == "" {
		failed, err := beginSwitch(ctx, m, s, rec, &mark, facts)
		if failed != nil || err != nil {
			return failed, err
		}
	}
	return finishSwitch(ctx, m, s, rec, mark)
}

// givenUp gives up a target over which somebody else has chosen a third system. As
// long as the run with the id is under way nothing is known.
func givenUp(ctx context.Context, m host.Machine, s Spec, runID string) (lifecycle.Body, error) {
	if runID != "" {
		run, err := m.Status(ctx, host.SlotSwitch)
		if err != nil {
			return nil, transient(ctx, "look at "+string(host.SlotSwitch), err)
		}
		if run.Phase == host.RunRunning && run.ID == runID {
			return nil, nil
		}
	}
	facts, err := look(ctx, m) // now that no program of ours moves it
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	switch Base(m, facts.Current, s.Target, s.Prior, s.Ran) {
	case "", s.Target, s.Prior, s.Ran:
		return nil, nil
	}
	return lifecycle.GaveUp{Cause: lifecycle.CauseDrift, FailingProbes: []string{}, PolicyApplied: s.OnHealthFailure}, nil
}

// recallSwitch is the mark of the switch in this boot; units of another boot are
// gone. A unit that was started just before a crash, and so not recorded, is
// recorded now.
func recallSwitch(ctx context.Context, m host.Machine, s Spec, rec Recorder, bootID string) (Mark, error) {
	mark, err := rec.Recall(ctx, s.Rollout, StepSwitch)
	if err != nil {
		return Mark{}, transient(ctx, "recall the switch", err)
	}
	if mark.BootID != bootID {
		return Mark{}, nil
	}
	if mark.RunID != "" {
		return mark, nil
	}
	run, err := m.Status(ctx, host.SlotSwitch)
	if err != nil {
		return Mark{}, transient(ctx, "look at "+string(host.SlotSwitch), err)
	}
	if !ofSwitch(run, s) {
		return mark, nil
	}
	mark.RunID = run.ID
	return mark, record(ctx, s, rec, mark)
}

func record(ctx context.Context, s Spec, rec Recorder, mark Mark) error {
	if err := rec.Record(ctx, s.Rollout, StepSwitch, mark); err != nil {
		return transient(ctx, "record the switch", err)
	}
	return nil
}

// beginSwitch starts the unit. What must be known after a crash is recorded
// before, and the unit's id as soon as it has one. A body is returned when the
// switch must not begin.
func beginSwitch(ctx context.Context, m host.Machine, s Spec, rec Recorder, mark *Mark, facts host.Facts) (lifecycle.Body, error) {
	failed, err := secureWayBack(ctx, m, s, facts)
	if failed != nil || err != nil {
		return failed, err
	}
	if mark.BootID == "" {
		before, err := m.Units(ctx)
		if err != nil {
			return nil, transient(ctx, "look at the units", err)
		}
		*mark = Mark{BootID: facts.BootID, Before: before}
		if err := record(ctx, s, rec, *mark); err != nil {
			return nil, err
		}
		crashpoint.Here("activation/switch-marked", "the switch is known to be next; its unit was not started")
	}
	timeout := s.SwitchTimeout
	if timeout == 0 {
		timeout = SwitchTimeout
	}
	id, err := start(ctx, m, host.SlotSwitch, host.Command{Rollout: s.Rollout, Closure: s.Target, Action: host.ActionTest, Timeout: timeout})
	if err != nil {
		return nil, err
	}
	crashpoint.Here("activation/switch-started", "the unit of the switch runs; its id is not recorded")
	mark.RunID = id
	if err := record(ctx, s, rec, *mark); err != nil {
		return nil, err
	}
	crashpoint.Here("activation/switch-recorded", "the unit of the switch runs, and its id is recorded")
	return nil, nil
}

// secureWayBack makes prior the boot default when it is not. The body says why the
// machine must not be changed further.
func secureWayBack(ctx context.Context, m host.Machine, s Spec, facts host.Facts) (lifecycle.Body, error) {
	if leadsTo(facts, s.Prior) {
		return nil, nil
	}
	_, failed, err := makeDefault(ctx, m, s, s.Prior, true)
	switch {
	case err != nil:
		return nil, err
	case failed == nil:
		crashpoint.Here("activation/way-back-secured", "prior is the boot default, which it was not; no switch was begun")
		return nil, nil
	}
	text := fmt.Sprintf("%s\nprior could not be made the boot default, so the switch was not begun (%s)", strings.TrimRight(failed.text, "\n"), failed.phase)
	return lifecycle.ActivationFailed{ExitCode: failed.exit, StderrTail: host.Tail([]byte(text)), Phase: lifecycle.PhasePreflight}, nil
}

// leadsTo tells whether a power cut leads to the closure. Where no boot loader can
// be asked, the profile has to do.
func leadsTo(f host.Facts, c fleet.Closure) bool {
	if f.BootDefaultVerified {
		return f.BootDefault == c
	}
	return f.Profile == c
}

// finishSwitch waits for the end of the recorded run and judges it.
func finishSwitch(ctx context.Context, m host.Machine, s Spec, rec Recorder, mark Mark) (lifecycle.Body, error) {
	run, err := await(ctx, m, host.SlotSwitch, mark.RunID)
	if err != nil {
		return nil, err
	}
	crashpoint.Here("activation/switch-ended", "the unit of the switch has ended; its outcome is not committed")
	units, err := settledUnits(ctx, m)
	if err != nil {
		return nil, err
	}
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	seen := sight{run: run, current: Base(m, facts.Current, s.Target, s.Prior, s.Ran), newlyFailed: newlyFailed(mark.Before, units), bootID: facts.BootID}
	inhibited, err := onlyBoots(m, s, seen)
	if err != nil {
		return nil, transient(ctx, "look for inhibitors", err)
	}
	again := mark
	again.RunID = ""
	switch {
	case len(inhibited) > 0:
		return stage(ctx, m, s, facts, inhibited)
	case didNotBegin(run):
	case run.Phase == host.RunAbsent && seen.current == s.Target && !mark.Again:
		again.Again = true
	default:
		return judge(s, seen), nil
	}
	// Forgotten before the unit is cleared: one that is not there and was not
	// recorded was never started.
	if err := record(ctx, s, rec, again); err != nil {
		return nil, err
	}
	crashpoint.Here("activation/switch-forgotten", "a run that did not begin is forgotten; its unit is still there")
	if err := m.Clear(ctx, host.SlotSwitch); err != nil {
		return nil, transient(ctx, "clear "+string(host.SlotSwitch), err)
	}
	if !didNotBegin(run) {
		return nil, transient(ctx, "switch", errUnseen)
	}
	return nil, waitForLock()
}
