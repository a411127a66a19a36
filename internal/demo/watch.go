package demo

import (
	"context"
	"errors"
	"slices"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// settled waits until nothing more will happen in a rollout by itself. That this
// did not come in time is for the act to find out.
func (w *world) settled(ctx context.Context, id string) error {
	return w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
		r, err := operator.Get[wire.RolloutLifecycle](ctx, w.operator, wire.Fill(wire.PathRolloutLifecycle, id))
		if err != nil {
			return false, err
		}
		rows, err := w.watch(ctx, id)
		return settled(r.State, rows), err
	})
}

// settled tells whether a rollout and its hosts are in states that stay.
func settled(state string, rows []wire.RolloutHost) bool {
	switch rollout.State(state) {
	case rollout.Terminal, rollout.Reverted, rollout.Superseded:
		return true
	case rollout.Failed: // stays so when nobody has to go back
		return !slices.ContainsFunc(rows, func(row wire.RolloutHost) bool {
			return row.State == lifecycle.Activating || row.State == lifecycle.Soaking || row.Failure != nil && row.Failure.RollbackOwed
		})
	}
	return false
}

// until asks again and again until the answer is yes, the control plane being
// away or not having seen the release being no answer. Running out of time is no
// error: what is there then is what counts.
func (w *world) until(ctx context.Context, limit time.Duration, ask func(context.Context) (bool, error)) error {
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := ask(timed)
		var unreachable *operator.Unreachable
		var refused *wire.Error
		switch {
		case err == nil && yes:
			return nil
		case err == nil, errors.As(err, &unreachable), errors.As(err, &refused), errors.Is(err, context.DeadlineExceeded):
		default:
			return err
		}
		select {
		case <-tick.C:
		case <-timed.Done():
			return context.Cause(ctx) // nil when only the time is over
		}
	}
}

// watch returns a rollout's hosts, and reports what has changed about them since
// it was last asked.
func (w *world) watch(ctx context.Context, id string) ([]wire.RolloutHost, error) {
	rows, err := operator.List[wire.RolloutHost](ctx, w.operator, wire.Fill(wire.PathRolloutHosts, id), "")
	for _, row := range rows {
		if key := id + "/" + row.Hostname; w.told[key] != row.State {
			w.told[key] = row.State
			if row.State != lifecycle.Pending {
				w.say(Progress{Kind: HostChanged, Text: row.Hostname, State: row.State})
			}
		}
	}
	return rows, err
}
