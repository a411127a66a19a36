package core

import (
	"context"
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/rollout"
)

// action stamps what is decided now.
func (b *batch) action(body rollout.Body) rollout.Action {
	return rollout.Action{At: b.now, Ready: b.state.world.Ready, Body: body}
}

// decide logs and applies an action of the planner or of the core. One that does
// not fit the world gives a *rollout.Conflict and leaves no trace.
func (b *batch) decide(a rollout.Action) error {
	d, err := encodeDecision(a)
	if err != nil {
		return err
	}
	return b.try(store.Record{Decision: d})
}

// plan has the planner decide what is next, until nothing is, each round in a
// transaction of its own, and hands out the orders that were committed.
func (c *Core) plan(ctx context.Context) {
	c.planned, c.planDue = time.Now(), false
	for {
		b := c.begin()
		actions := rollout.Plan(c.state.world, b.now)
		for _, a := range actions {
			a.At = b.now
			if err := b.decide(a); err != nil {
				// The planner and the actions' own checks disagree; nothing of this
				// round is kept.
				c.Log.Error("planned action does not fit", "action", a.Body.Kind(), "error", err)
				b.broken = err
				break
			}
			b.handOut(a.Body)
		}
		if c.commit(ctx, b) != nil || len(actions) == 0 {
			break
		}
	}
	c.planCost = time.Since(c.planned)
	c.Metrics.Plan.Observe(c.planCost.Seconds())
	c.health.Store(&Health{PlannedAt: c.planned, Documents: c.state.fleet != nil})
}
