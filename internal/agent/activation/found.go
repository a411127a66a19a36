package activation

import (
	"context"

	"nixfleet/internal/agent/host"
)

// Found is how the run of a switch program stands that an earlier agent may have
// started.
type Found string

// What is found of a run.
const (
	NeverStarted Found = "never started" // in this boot, or it found the switch lock held and did nothing
	Running      Found = "running"
	EndedOK      Found = "ended ok"    // to its end; units may have failed
	EndedBadly   Found = "ended badly" // in any other way
	Refused      Found = "refused"     // it said that it would not, and did nothing
	Gone         Found = "gone"        // it was recorded, and nobody saw its end
	GoneTwice    Found = "gone twice"  // as was the run after the first
)

// FindSwitch tells how the switch of a rollout stands, by the mark that it left
// and by the machine that was seen. It changes nothing.
func FindSwitch(ctx context.Context, m host.Machine, s Spec, mark Mark, facts host.Facts) (Found, error) {
	if mark.BootID != facts.BootID {
		return NeverStarted, nil
	}
	run, err := m.Status(ctx, host.SlotSwitch)
	switch {
	case err != nil:
		return "", err
	case mark.RunID == "" && !ofSwitch(run, s):
		return NeverStarted, nil
	case mark.RunID == "" || run.Phase != host.RunAbsent && run.ID == mark.RunID:
		seen := sight{run: run, current: Base(m, facts.Current, s.Target, s.Prior, s.Ran)}
		if run.Phase == host.RunEnded && seen.nothingDone(s) && refused(run) {
			return Refused, nil
		}
		return found(run), nil
	case mark.Again:
		return GoneTwice, nil
	}
	return Gone, nil
}

// FindRollback tells how the program of prior stands. A run that is not there is
// not told from one that never was: prior is made live again either way.
func FindRollback(ctx context.Context, m host.Machine, s Spec) (Found, error) {
	run, err := m.Status(ctx, host.SlotRollback)
	switch {
	case err != nil:
		return "", err
	case run.Phase == host.RunAbsent || run.Rollout != s.Rollout || run.Closure != s.Prior:
		return NeverStarted, nil
	}
	return found(run), nil
}

// found is how a run stands that the slot holds.
func found(run host.Run) Found {
	switch {
	case run.Phase == host.RunRunning:
		return Running
	case didNotBegin(run):
		return NeverStarted
	case endedWell(run):
		return EndedOK
	}
	return EndedBadly
}

// ofSwitch tells whether a run is the switch of the rollout.
func ofSwitch(run host.Run, s Spec) bool {
	return run.Phase != host.RunAbsent && run.Rollout == s.Rollout && run.Closure == s.Target && run.Action == host.ActionTest
}
