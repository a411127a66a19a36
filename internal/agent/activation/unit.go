package activation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/wire"
)

// statusPatience is how long the machine may be unable to tell about a unit, as
// while its init system is replaced, before that is told.
const statusPatience = time.Minute

// await waits for the end of the run with the given id. A run that is absent, or
// another one, is an end that nobody saw.
func await(ctx context.Context, m host.Machine, slot host.Slot, id string) (host.Run, error) {
	var blind time.Duration
	for {
		run, err := m.Status(ctx, slot)
		switch {
		case err == nil && (run.Phase == host.RunAbsent || run.ID != id):
			return host.Run{}, nil
		case err == nil && run.Phase == host.RunEnded:
			return run, nil
		case err == nil:
			blind = 0
		case blind >= statusPatience:
			return host.Run{}, transient(ctx, "wait for "+string(slot), err)
		default:
			blind += host.Poll
		}
		if err := sleep(ctx, host.Poll); err != nil {
			return host.Run{}, fmt.Errorf("wait for %s: %w", slot, err)
		}
	}
}

// start begins a run in a slot whose last result is of no more use. What runs
// there, for another rollout, is waited for.
func start(ctx context.Context, m host.Machine, slot host.Slot, c host.Command) (id string, err error) {
	locked, err := m.SwitchLocked(ctx)
	if err != nil {
		return "", transient(ctx, "look at the switch lock", err)
	}
	if locked {
		return "", waitForLock()
	}
	last, err := m.Status(ctx, slot)
	if err != nil {
		return "", transient(ctx, "look at "+string(slot), err)
	}
	if last.Phase == host.RunRunning {
		return "", waitForLock()
	}
	if err := m.Clear(ctx, slot); err != nil {
		return "", transient(ctx, "clear "+string(slot), err)
	}
	id, err = m.Start(ctx, slot, c)
	if err != nil {
		return "", transient(ctx, "start "+string(slot), err)
	}
	return id, nil
}

func waitForLock() *Wait {
	return &Wait{On: wire.WaitingOnSwitchLock, Err: errors.New("another switch of this machine is under way")}
}

// Exit codes of switch-to-configuration.
const (
	exitDone        = 0
	exitRefused     = 1   // among others: a pre-switch check failed
	exitFailedUnits = 4   // the system is live, but units failed
	exitLocked      = 11  // EAGAIN: another switch holds the lock, nothing was done
	exitNeedsReboot = 100 // the init interface changed, nothing was done
)

// didNotBegin tells whether the program found the switch lock held and did
// nothing. Older ones end with another code, but say so.
func didNotBegin(r host.Run) bool {
	return r.Exited(exitLocked) ||
		r.Result == host.ResultExitCode && strings.Contains(r.Output, "Could not acquire lock")
}

// endedWell tells whether the program ran to its end. Failed units do not count:
// a killed switch leaves lists behind that make the next one end with 4.
func endedWell(r host.Run) bool { return r.Exited(exitDone) || r.Exited(exitFailedUnits) }

// refused tells whether the program ended before it had changed anything.
func refused(r host.Run) bool { return r.Exited(exitNeedsReboot) || refusedByCheck(r) }

// account is what is told about a run: how it ended, when its exit code does not
// say it, and its last words.
func account(r host.Run, remark string) string {
	switch r.Result {
	case host.ResultSuccess, host.ResultExitCode:
	case "":
		remark = joined("the end of its unit was not seen", remark)
	default:
		remark = joined("its unit ended with "+r.Result, remark)
	}
	output := strings.TrimRight(r.Output, "\n")
	switch {
	case remark == "":
		return r.Output
	case output == "":
		return host.Tail([]byte(remark))
	}
	return host.Tail([]byte(output + "\n" + remark))
}

func joined(a, b string) string {
	if b == "" {
		return a
	}
	return a + "; " + b
}

// exitCode is what is told of a run's exit code.
func exitCode(r host.Run) int {
	if r.Phase != host.RunEnded {
		return exitUnseen
	}
	return r.ExitCode
}
