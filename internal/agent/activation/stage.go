package activation

import (
	"context"
	"fmt"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/lifecycle"
)

// Stage makes the target the boot default and leaves alone what runs: the target
// becomes live at the next boot. If neither prior nor target is the boot default,
// prior becomes it before anything else, as in Switch. A third system that somebody
// else has made live stays, as there.
func Stage(ctx context.Context, m host.Machine, s Spec) (lifecycle.Body, error) {
	held, err := Lock(ctx, s.LockFile)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	if given, err := givenUp(ctx, m, s, ""); given != nil || err != nil {
		return given, err
	}
	inhibited, err := inhibitors(m, facts.Current, s.Target, s.DeferOn)
	if err != nil {
		return nil, transient(ctx, "look for inhibitors", err)
	}
	return stage(ctx, m, s, facts, inhibited)
}

// stage is Stage for who holds the lock and knows why.
func stage(ctx context.Context, m host.Machine, s Spec, facts host.Facts, inhibited []string) (lifecycle.Body, error) {
	if !leadsTo(facts, s.Target) {
		failed, err := secureWayBack(ctx, m, s, facts)
		if failed != nil || err != nil {
			return failed, err
		}
	}
	if !bootsAlready(facts, s.Target) {
		_, failure, err := makeDefault(ctx, m, s, s.Target, false)
		if err != nil {
			return nil, err
		}
		if failure != nil {
			text := fmt.Sprintf("%s\nthe target could not be staged for the next boot (%s)", strings.TrimRight(failure.text, "\n"), failure.phase)
			return lifecycle.ActivationFailed{ExitCode: failure.exit, StderrTail: host.Tail([]byte(text)), Phase: lifecycle.PhaseSwitch, Mutated: true}, nil
		}
	}
	crashpoint.Here("activation/staged", "the target is the boot default, prior runs; no outcome is committed")
	return lifecycle.ActivationDeferred{Component: strings.Join(inhibited, ",")}, nil
}
