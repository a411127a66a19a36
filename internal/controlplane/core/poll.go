package core

import (
	"context"
	"time"

	"nixfleet/internal/crashpoint"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// reofferEvery is how soon an order that was handed out and not yet answered is
// handed out again: the answer may be on its way.
const reofferEvery = 5 * time.Second

// waiter is a parked poll. The core alone sends to it, at most once.
type waiter struct {
	order chan *wire.Order // has room for one; closed when a newer poll took its place
}

// Poll waits for an order to the host, until the context ends. Looking and
// parking are one step of the core. A poll of the same host that waited before
// is ended with no order.
func (c *Core) Poll(ctx context.Context, host string) (*wire.Order, error) {
	w := &waiter{order: make(chan *wire.Order, 1)}
	arrive := func(b *batch) {
		b.heard(host)
		b.after(func() { b.park(host, w) })
	}
	if err := c.submit(ctx, arrive); err != nil {
		return nil, err
	}
	select {
	case o := <-w.order:
		return o, nil
	case <-c.stopped:
		return nil, nil
	case <-ctx.Done():
	}
	// Leave. An order that was handed over meanwhile still counts.
	leave := func(b *batch) { b.after(func() { b.unpark(host, w) }) }
	if err := c.submit(context.WithoutCancel(ctx), leave); err != nil {
		return nil, err
	}
	select {
	case o := <-w.order:
		return o, nil
	default:
		return nil, nil
	}
}

func (c *Core) park(host string, w *waiter) {
	if older := c.waiters[host]; older != nil {
		close(older.order)
	} else {
		c.Metrics.Parked.Inc()
	}
	c.waiters[host] = w
	m := c.state.machine(host)
	m.Parked = true
	if c.reoffer(host) {
		return
	}
	if _, h := c.state.newest(host); h != nil && (h.Signal != nil || h.Skip != nil || h.Order == nil && !h.Terminal()) {
		c.planDue = true
	}
}

func (c *Core) unpark(host string, w *waiter) {
	if c.waiters[host] == w {
		delete(c.waiters, host)
		c.state.machine(host).Parked = false
		c.Metrics.Parked.Dec()
	}
}

// send hands an order to the host's parked poll, which ends by it.
func (c *Core) send(host string, o *wire.Order) {
	w := c.waiters[host]
	if w == nil {
		return // the poll ended meanwhile; the next one is offered it again
	}
	crashpoint.Here("core/order-handed", "the delivery of an order is stored; the host's poll does not have it")
	w.order <- o
	c.unpark(host, w)
	c.state.machine(host).offered = time.Now()
	c.Metrics.Orders.WithLabelValues(string(o.Kind)).Inc()
}

// reoffer hands out again an order that was handed out and is not answered.
// Requests to leave a rollout are repeated by the planner.
func (c *Core) reoffer(host string) bool {
	if time.Since(c.state.machine(host).offered) < reofferEvery || c.state.world.Recovery != nil {
		return false
	}
	if r, h := c.state.newest(host); h != nil && h.Order != nil {
		c.send(host, c.dispatch(r, h))
		return true
	}
	return false
}

// reofferAll does it for everybody who waits, now and then.
func (c *Core) reofferAll() {
	if time.Since(c.offered) < reofferEvery {
		return
	}
	c.offered = time.Now()
	for host := range c.waiters {
		c.reoffer(host)
	}
}

// handOut arranges for an order to be sent once its delivery is committed.
func (b *batch) handOut(body rollout.Body) {
	switch a := body.(type) {
	case rollout.Delivered:
		b.after(func() {
			r := b.state.world.Rollouts[a.Rollout]
			if h := r.Host(a.Host); h.Order != nil && h.Order.ID == a.OrderID {
				b.send(a.Host, b.dispatch(r, h))
			}
		})
	case rollout.Signalled:
		b.after(func() {
			if h := b.state.world.Rollouts[a.Rollout].Host(a.Host); h.Signal != nil && h.Signal.ID == a.OrderID {
				b.send(a.Host, signal(h))
			}
		})
	}
}

func (c *Core) dispatch(r *rollout.Rollout, h *rollout.HostRow) *wire.Order {
	o := &wire.Order{
		OrderID: h.Order.ID, Kind: wire.OrderDispatch, Hostname: h.Hostname, RolloutID: r.ID,
		TargetClosure: h.Target, EnqueuedAt: h.Order.At, Wave: h.Wave,
		SoakDueAt: time.Now().UTC().Add(time.Duration(h.SoakSecs) * time.Second).Truncate(time.Second),
	}
	if m := c.state.manifests[r.ID]; m != nil {
		o.ManifestHash = m.Hash()
	}
	return o
}

func signal(h *rollout.HostRow) *wire.Order {
	return &wire.Order{
		OrderID: h.Signal.ID, Kind: wire.OrderRollbackSignal, Hostname: h.Hostname, RolloutID: h.Rollout,
		Reason: h.Signal.Why, IssuedAt: h.Signal.At,
	}
}
