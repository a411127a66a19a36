package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// The host's backoff between offers of an order that it refuses.
const (
	minRejectBackoff = time.Minute
	maxRejectBackoff = 30 * time.Minute
)

// pollSpread is the most that a poll which ended early waits before the next, so
// that the agents of a control plane that comes back do not come in one instant.
const pollSpread = 5 * time.Second

// orderSpacing is the least time from one order to the next: a control plane that
// hands out orders without end must not keep the host busy, nor fill its journal
// with the answers.
const orderSpacing = time.Second

// Bounds of what is taken from an order. Ids are echoed in answers and kept.
const (
	maxOrderID      = 200  // bytes, of either id
	maxSignalReason = 1024 // bytes; of a longer one the beginning is kept
	maxRejects      = 100  // rollouts whose refusals are counted
)

// parkedAfter is when a poll that has not failed is taken for one that waits at the
// control plane: its answer may be a minute away.
const parkedAfter = 10 * time.Second

// pollOrders keeps one poll for orders at the control plane, and follows or
// refuses what comes.
func (a *Agent) pollOrders(ctx context.Context) error {
	var backoff uplink.Backoff
	rejects := map[string]int{} // refusals by rollout, since the last that was followed
	last := ""                  // id of the order before
	if err := a.whenNumbered(ctx); err != nil {
		return nil
	}
	for ctx.Err() == nil {
		began := time.Now()
		parked := time.AfterFunc(parkedAfter, func() { a.uplinkWell("orders") })
		order, err := a.uplink.Dispatch(ctx, wire.MaxWait)
		parked.Stop()
		switch {
		case err != nil:
		case order == nil:
			backoff.Reset()
			a.uplinkWell("orders")
			if time.Since(began) < wire.MaxWait/2 {
				a.pause(ctx, rand.N(pollSpread))
			}
			continue
		default:
			if order.OrderID != "" && order.OrderID == last {
				// Its answer is on the way; asking at once would get it again.
				a.pause(ctx, time.Second+rand.N(pollSpread))
			}
			last = order.OrderID
			err = a.follow(ctx, *order, rejects)
		}
		if err != nil {
			a.uplinkTrouble("orders", err)
			a.pause(ctx, backoff.Next(err))
			continue
		}
		backoff.Reset()
		a.uplinkWell("orders")
		a.pause(ctx, orderSpacing-time.Since(began))
	}
	return nil
}

// whenNumbered waits until it is known which numbers this host's events have had:
// until then no rollout can be accepted.
func (a *Agent) whenNumbered(ctx context.Context) error {
	for {
		changed := a.reducer.changed.wait() // taken before looking
		if s := a.reducer.view(); s.self.Numbered && s.facts != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow does what an order asks for, or refuses it. An error means that the
// order was not answered and will be offered again.
func (a *Agent) follow(ctx context.Context, o wire.Order, rejects map[string]int) error {
	var err error
	switch {
	case len(o.OrderID) > maxOrderID || len(o.RolloutID) > maxOrderID:
		return errors.New("the order's ids are longer than any answer could carry")
	case o.Hostname != "" && o.Hostname != a.cfg.MachineID:
		err = &rejection{Reason: wire.RejectReason(trust.ErrMismatch), Detail: fmt.Sprintf("the order is for host %.253q", o.Hostname)}
	case !isRolloutID(o.RolloutID):
		err = &rejection{Reason: wire.RejectReason(trust.ErrMalformed), Detail: fmt.Sprintf("%q is no rollout's id", o.RolloutID)}
	case o.Kind == wire.OrderRollbackSignal:
		err = a.reducer.submit(ctx, "signal "+o.RolloutID, func(t *turn) error { return t.signal(o) })
	case o.Kind == wire.OrderDispatch, o.Kind == "":
		err = a.take(ctx, o)
	default:
		err = &rejection{Reason: wire.RejectReason(trust.ErrMalformed), Detail: fmt.Sprintf("this agent knows no orders of kind %.40q", o.Kind)}
	}
	var refused *rejection
	if !errors.As(err, &refused) {
		if err == nil {
			delete(rejects, o.RolloutID)
			a.refused.Store(nil)
		}
		return err
	}
	retry := refused.RetryAfter
	if retry == 0 {
		retry = min(minRejectBackoff<<min(rejects[o.RolloutID], 5), maxRejectBackoff)
	}
	if len(rejects) >= maxRejects {
		clear(rejects)
	}
	rejects[o.RolloutID]++
	a.log.Warn("order refused", "rollout", o.RolloutID, "order", o.OrderID, "reason", string(refused.Reason), "detail", refused.Detail)
	a.refused.Store(&refusal{rollout: o.RolloutID, rejection: *refused, at: time.Now()})
	return a.uplink.Reject(ctx, wire.Reject{
		OrderID:        o.OrderID,
		RolloutID:      o.RolloutID,
		Reason:         refused.Reason,
		Detail:         refused.Detail,
		RetryAfterSecs: int(max(retry, time.Second) / time.Second),
	})
}

// isRolloutID tells whether an order names what can be a rollout: only that is
// asked for, kept, and told to others.
func isRolloutID(id string) bool {
	_, _, _, err := fleet.ParseRolloutID(id)
	return err == nil
}

// take accepts a dispatch once its plan is verified.
func (a *Agent) take(ctx context.Context, o wire.Order) error {
	if e := a.reducer.view().find(o.RolloutID); e != nil {
		return nil // offered again: its answer has not arrived yet
	}
	p, err := a.fetchPlan(ctx, o.RolloutID)
	if err != nil {
		return err
	}
	if p == nil {
		return errors.New("the control plane says that a manifest was not modified that this host does not have")
	}
	return a.reducer.submit(ctx, "accept "+o.RolloutID, func(t *turn) error { return t.accept(o.OrderID, *p) })
}

// refusal is the last order that was refused, for status.
type refusal struct {
	rollout string
	rejection
	at time.Time
}

// pause waits, unless somebody wants to hear from the control plane now.
func (a *Agent) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.pollNow.wait():
	case <-ctx.Done():
	}
}
