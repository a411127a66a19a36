package activation

import (
	"errors"
	"fmt"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// errUnseen: the target runs, but how its switch ended was not seen.
var errUnseen = errors.New("how it ended was not seen; its program is run once more")

// sight is what was seen of a switch: the end of its run (absent when nobody saw
// it) and the machine afterwards.
type sight struct {
	run         host.Run
	current     fleet.Closure
	newlyFailed []string
	bootID      string
}

// judge is the table of exit codes. A symlink that moved proves nothing, and
// neither does an exit code: both have to be right.
func judge(s Spec, seen sight) lifecycle.Body {
	run := seen.run
	live := seen.current == s.Target
	nothingDone := seen.nothingDone(s)
	switch {
	case run.Exited(exitDone) && live,
		run.Exited(exitFailedUnits) && live && len(seen.newlyFailed) <= s.MaxFailedUnits:
		return lifecycle.ActivationCompleted{
			ObservedCurrentClosure: s.Target,
			ExitCode:               run.ExitCode,
			NewFailedUnits:         seen.newlyFailed,
			BootID:                 seen.bootID,
		}
	case run.Exited(exitDone), run.Exited(exitFailedUnits) && !live:
		return failed(seen, lifecycle.PhaseObserve, true, fmt.Sprintf("the program ended, but %s runs", named(seen.current)))
	case run.Exited(exitFailedUnits):
		return failed(seen, lifecycle.PhaseObserve, true, fmt.Sprintf("%d newly failed units of %d tolerated: %s",
			len(seen.newlyFailed), s.MaxFailedUnits, strings.Join(seen.newlyFailed, " ")))
	case nothingDone && refusedByCheck(run):
		return failed(seen, lifecycle.PhasePreflight, false, "a pre-switch check of the target refused the switch; nothing was changed")
	}
	return failed(seen, lifecycle.PhaseSwitch, true, fmt.Sprintf("%s runs", named(seen.current)))
}

// nothingDone tells whether what ran before runs still, as far as the link shows it.
func (seen sight) nothingDone(s Spec) bool {
	return (seen.current == s.Prior || s.Ran != "" && seen.current == s.Ran) && seen.current != s.Target
}

// refusedByCheck looks for the words of a failed pre-switch check: exit code 1
// alone can also be an activation that broke in the middle.
func refusedByCheck(r host.Run) bool {
	return r.Exited(exitRefused) && strings.Contains(r.Output, "Pre-switch check")
}

// onlyBoots names what keeps a target from being made live whose program refused
// that and did nothing; none when it was no such refusal.
func onlyBoots(m host.Machine, s Spec, seen sight) ([]string, error) {
	switch {
	case !seen.nothingDone(s):
		return nil, nil
	case seen.run.Exited(exitNeedsReboot):
		return []string{"init-interface"}, nil
	case refusedByCheck(seen.run):
		return inhibitors(m, seen.current, s.Target, s.DeferOn)
	}
	return nil, nil
}

func named(c fleet.Closure) string {
	if c == "" {
		return "no known system"
	}
	return string(c)
}

func failed(seen sight, phase lifecycle.Phase, mutated bool, remark string) lifecycle.ActivationFailed {
	return lifecycle.ActivationFailed{
		ExitCode:   exitCode(seen.run),
		StderrTail: account(seen.run, remark),
		Phase:      phase,
		Mutated:    mutated,
	}
}
