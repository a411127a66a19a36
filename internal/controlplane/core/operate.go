package core

import (
	"context"
	"encoding/json"
	"fmt"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/rollout"
)

// Operate does what an operator asks for, and logs who asked and why. An action
// that does not fit gives a *rollout.Conflict.
func (c *Core) Operate(ctx context.Context, who, subject, why string, body rollout.Body) error {
	var refused error
	err := c.submit(ctx, func(b *batch) {
		if refused = b.operate(who, subject, why, body); refused == nil {
			b.planDue = true
		}
	})
	if err != nil {
		return err
	}
	return refused
}

func (b *batch) operate(who, subject, why string, body rollout.Body) error {
	args, err := json.Marshal(b.action(body))
	if err != nil {
		return fmt.Errorf("encode %s: %w", body.Kind(), err)
	}
	return b.try(store.Record{Action: &store.Action{Who: who, Verb: string(body.Kind()), Subject: subject, Why: why, Args: args}})
}

// Rollback asks every host that has begun a rollout and not converged to leave
// it, and tells which those are and which stay.
func (c *Core) Rollback(ctx context.Context, who, id, why string) (back, stay []string, err error) {
	var refused error
	err = c.submit(ctx, func(b *batch) {
		if r := b.state.world.Rollouts[id]; r != nil {
			back, stay = rollout.RollbackScope(r)
		}
		if refused = b.operate(who, id, why, rollout.RolledBack{Rollout: id, Who: who, Why: why}); refused == nil {
			b.planDue = true
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return back, stay, refused
}

// Force lets the current wave of a rollout pass with nobody of it converged.
func (c *Core) Force(ctx context.Context, who, id, why string) error {
	var refused error
	err := c.submit(ctx, func(b *batch) {
		wave := 0
		if r := b.state.world.Rollouts[id]; r != nil {
			wave = r.Wave
		}
		if refused = b.operate(who, id, why, rollout.Forced{Rollout: id, Wave: wave, Who: who, Why: why}); refused == nil {
			b.planDue = true
		}
	})
	if err != nil {
		return err
	}
	return refused
}
