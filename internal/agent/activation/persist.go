package activation

import (
	"context"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/lifecycle"
)

// Persist makes the target the boot default. Until it has, a reboot or a power
// cut brings prior back by itself.
func Persist(ctx context.Context, m host.Machine, s Spec) (lifecycle.Body, error) {
	held, err := Lock(ctx, s.LockFile)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	facts, err := look(ctx, m, s.Target, s.Prior)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	if bootsAlready(facts, s.Target) {
		return lifecycle.Persisted{Generation: facts.Generation, BootDefaultVerified: true}, nil
	}
	done, failed, err := makeDefault(ctx, m, s, s.Target, false)
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return lifecycle.PersistFailed{Phase: failed.phase, ExitCode: failed.exit, StderrTail: host.Tail([]byte(failed.text))}, nil
	}
	return lifecycle.Persisted{Generation: done.generation, BootDefaultVerified: done.verified}, nil
}
