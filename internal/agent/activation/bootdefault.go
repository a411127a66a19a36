package activation

import (
	"context"
	"fmt"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// bootTimeout is how long a boot loader may take to be written.
const bootTimeout = 10 * time.Minute

// stepFailure is a part of a step that did not work.
type stepFailure struct {
	phase lifecycle.Phase
	exit  int
	text  string
}

// defaulted is a machine that boots what was wanted.
type defaulted struct {
	generation int
	verified   bool // the boot loader was read back
	exit       int  // of the closure's switch program
}

// bootsAlready tells whether nothing is to be done for the machine to boot c.
func bootsAlready(f host.Facts, c fleet.Closure) bool {
	return f.BootDefaultVerified && f.BootDefault == c && f.Profile == c
}

// makeDefault makes a closure the boot default: the profile first, because a boot
// loader's installer takes only what is in the profile and succeeds otherwise;
// then the closure's own program, in a unit, because it must not die with us; then
// the boot loader is read back.
func makeDefault(ctx context.Context, m host.Machine, s Spec, c fleet.Closure, noCheck bool) (defaulted, *stepFailure, error) {
	// One that an earlier agent left is not killed in the middle of its writing.
	if run, err := m.Status(ctx, host.SlotBoot); err != nil {
		return defaulted{}, nil, transient(ctx, "look at "+string(host.SlotBoot), err)
	} else if run.Phase == host.RunRunning {
		if _, err := await(ctx, m, host.SlotBoot, run.ID); err != nil {
			return defaulted{}, nil, err
		}
	}
	generation, err := m.SetProfile(ctx, c)
	if err != nil {
		if ctx.Err() != nil {
			return defaulted{}, nil, transient(ctx, "set the profile", err)
		}
		return defaulted{}, &stepFailure{lifecycle.PhaseProfile, exitUnseen, err.Error()}, nil
	}
	crashpoint.Here("activation/profile-set", "the profile is the closure; its boot entry is not made")
	id, err := start(ctx, m, host.SlotBoot, host.Command{
		Rollout: s.Rollout,
		Closure: c,
		Action:  host.ActionBoot,
		NoCheck: noCheck,
		Timeout: bootTimeout,
		Alone:   s.Alone,
	})
	if err != nil {
		return defaulted{}, nil, err
	}
	crashpoint.Here("activation/boot-started", "the unit that makes the closure the boot default runs")
	run, err := await(ctx, m, host.SlotBoot, id)
	if err != nil {
		return defaulted{}, nil, err
	}
	crashpoint.Here("activation/boot-ended", "the unit that makes the closure the boot default has ended; nothing was read back")
	if didNotBegin(run) {
		return defaulted{}, nil, waitForLock()
	}
	if !run.Exited(exitDone) {
		return defaulted{}, &stepFailure{lifecycle.PhaseBoot, exitCode(run), account(run, "")}, nil
	}
	if err := m.SyncBoot(ctx); err != nil {
		return defaulted{}, &stepFailure{lifecycle.PhaseBoot, run.ExitCode, account(run, "sync the boot file system: "+err.Error())}, nil
	}
	facts, err := look(ctx, m, c)
	if err != nil {
		return defaulted{}, nil, transient(ctx, "read the boot default back", err)
	}
	if facts.BootDefaultVerified && facts.BootDefault != c {
		remark := fmt.Sprintf("the boot loader still boots %s", facts.BootDefault)
		return defaulted{}, &stepFailure{lifecycle.PhaseReadback, run.ExitCode, account(run, remark)}, nil
	}
	crashpoint.Here("activation/boot-verified", "the closure is the boot default, and was read back; no outcome is committed")
	return defaulted{generation: generation, verified: facts.BootDefaultVerified, exit: run.ExitCode}, nil, nil
}
