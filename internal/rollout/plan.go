package rollout

import (
	"slices"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

const (
	// lostMargin is how much longer than its confirm window a host may be silent
	// while it is being changed: by then it has gone back by itself, if it can.
	lostMargin = 15 * time.Minute

	// answerGrace is how long after an order a heartbeat may still have been
	// written before the order came.
	answerGrace = 30 * time.Second

	// signalRepeat is how long a request to leave a rollout waits for its answer
	// before it is offered again.
	signalRepeat = 30 * time.Second
)

// Plan is what is to be done next, in order: rollouts by opening time, hosts by
// wave, then name. The caller applies it and asks again, until nothing is left.
// Releases come first, then what the rollouts' own state demands, and orders
// only when none of that is left: so no order is handed out in a rollout that
// ought to be halted, and none takes a slot that a returning host holds.
//
// Now is the wall time. It decides about the freshness of manifests and about
// nothing else.
func Plan(w *World, now time.Time) []Action {
	p := &planner{w: w, now: now, index: w.indexed(), barred: w.quarantines()}
	for _, stage := range []func(){p.release, p.settle, p.dispatch} {
		if stage(); len(p.actions) > 0 {
			break
		}
	}
	return p.actions
}

// planner is one run of Plan.
type planner struct {
	w       *World
	now     time.Time
	index   *index
	barred  barred
	actions []Action
}

func (p *planner) do(b Body) {
	p.actions = append(p.actions, Action{At: p.now, Ready: p.w.Ready, Body: b})
}

// machine is what is known of a host's connections; of a stranger nothing is.
func (p *planner) machine(host string) *Machine {
	if m := p.w.Machines[host]; m != nil {
		return m
	}
	return &Machine{}
}

// settle does what the state of each rollout and of its hosts demands.
func (p *planner) settle() {
	for _, r := range p.index.rollouts {
		before := len(p.actions)
		newest := p.w.isNewest(r)
		if newest || r.anyBegun() {
			for i := range r.Hosts {
				if h := &r.Hosts[i]; newest || h.begun() {
					p.settleHost(r, h)
				}
			}
		}
		if len(p.actions) == before {
			p.move(r)
		}
	}
}

// move takes the rollout one step on. A halt goes before everything else: a
// failure that has ended lets a wave pass only while it does not halt.
func (p *planner) move(r *Rollout) {
	if r.State.Unfinished() {
		if failed := p.w.failures(r); len(failed) >= r.haltLimit() {
			p.do(Halted{Rollout: r.ID, Hosts: failed, Limit: r.haltLimit()})
			return
		}
		if next, more := r.nextWave(); more {
			if p.w.waveDone(r) {
				p.do(Advanced{Rollout: r.ID, Wave: next})
			}
			return
		}
	}
	if to, ok := p.w.destination(r); ok {
		p.do(Moved{Rollout: r.ID, To: to})
	}
}

// settleHost does what silence, refusals and lost answers demand.
func (p *planner) settleHost(r *Rollout, h *HostRow) {
	m := p.machine(h.Hostname)
	silent := p.w.Ready - m.Seen
	switch {
	case h.Order != nil && answerLost(h, m):
		p.do(Released{Rollout: r.ID, Host: h.Hostname, OrderID: h.Order.ID})
	case h.Signal != nil && m.Parked && h.Signal.due(p.w.Ready):
		p.do(Signalled{Rollout: r.ID, Host: h.Hostname, OrderID: h.Signal.ID, Reason: h.Signal.Why})
	}
	if p.w.gone(r, h.Hostname) {
		return
	}
	switch {
	case h.Lost != nil && (silent < h.lostAfter() || !h.Live()):
		p.do(Found{Rollout: r.ID, Host: h.Hostname})
	case h.Lost == nil && silent >= h.lostAfter() && h.mustAnswer():
		p.do(Lost{Rollout: r.ID, Host: h.Hostname})
	}
	switch reason := p.skip(h, silent); {
	case h.Skip == nil && reason != "":
		p.do(Skipped{Rollout: r.ID, Host: h.Hostname, Reason: reason})
	case h.Skip != nil && p.joins(r, h, silent):
		p.do(Joined{Rollout: r.ID, Host: h.Hostname})
	}
}

// answerLost tells whether a heartbeat that was written after the order came
// shows that the host knows nothing of the rollout.
func answerLost(h *HostRow, m *Machine) bool {
	return m.HeartbeatAt >= h.Order.Ready+answerGrace && m.LastSeq[h.Rollout] == 0
}

func (s *Signal) due(ready time.Duration) bool { return !s.Sent || ready-s.Ready >= signalRepeat }

// lostAfter is how long the host may be silent while it is being changed.
func (h *HostRow) lostAfter() time.Duration {
	return time.Duration(h.Policy.ConfirmWindowSecs)*time.Second + lostMargin
}

// mustAnswer tells whether the host is being changed and would be heard if it
// were well. A host that waits for somebody to boot it may be silent.
func (h *HostRow) mustAnswer() bool {
	return h.Live() && !(h.State == lifecycle.Deferred && h.Policy.Reboot == fleet.RebootManual)
}

// offlineAfter is how long the host may be silent before its change has begun.
func (h *HostRow) offlineAfter() time.Duration {
	return time.Duration(h.Policy.OfflineAfterMinutes) * time.Minute
}

// skip is why nobody should wait for the host. Only one that has not begun to
// change is ever skipped by itself.
func (p *planner) skip(h *HostRow, silent time.Duration) SkipReason {
	switch {
	case h.State != lifecycle.Pending && h.State != lifecycle.Activating || h.Mutated:
		return ""
	case silent >= h.offlineAfter():
		return SkipOffline
	case h.Reject != nil && h.Reject.Ready-h.Reject.Since >= h.offlineAfter():
		return SkipRejecting
	}
	return ""
}

// joins tells whether the host is back.
func (p *planner) joins(r *Rollout, h *HostRow, silent time.Duration) bool {
	switch h.Skip.Reason {
	case SkipOffline:
		return silent < h.offlineAfter()
	case SkipRejecting:
		return h.Reject == nil
	case SkipQuarantine:
		_, still := p.barred.bars(r, h.Target)
		return !still
	}
	return false
}

// dispatch hands orders to the polls of hosts that no gate holds back, and
// records what holds back the others when it changes.
func (p *planner) dispatch() {
	slots := p.w.slots(p.index)
	for _, r := range p.index.rollouts {
		if !p.w.isNewest(r) {
			continue
		}
		v := newView(p, r, slots)
		for i := range r.Hosts {
			v.dispatchHost(i)
		}
	}
}

func (v *view) dispatchHost(i int) {
	h := &v.r.Hosts[i]
	if !v.eligible(h) {
		v.hold(h, Deferral{})
		return
	}
	c := candidate{view: v, HostRow: h, machine: v.p.machine(h.Hostname), id: v.plan.ids[i]}
	if d := c.blocked(); d.Gate != "" || !c.listens() {
		v.hold(h, d)
		return
	}
	v.p.do(Delivered{
		Rollout: v.r.ID, Host: h.Hostname, OrderID: h.orderID(),
		Target: h.Target, Wave: h.Wave, Slotless: c.there(),
	})
	if !c.there() {
		v.slots.take(c.id)
	}
}

// eligible tells whether the host waits for an order. One that is skipped for
// its refusals is asked again, because its acknowledgement is how it comes back.
func (v *view) eligible(h *HostRow) bool {
	return h.State == lifecycle.Pending && h.Order == nil &&
		(h.Skip == nil || h.Skip.Reason == SkipRejecting) &&
		!v.p.w.gone(v.r, h.Hostname)
}

// hold records what holds the host back, when it changed.
func (v *view) hold(h *HostRow, d Deferral) {
	var old Deferral
	if h.Deferral != nil {
		old = *h.Deferral
	}
	if d != old {
		v.p.do(Deferred{Rollout: v.r.ID, Host: h.Hostname, Deferral: d})
	}
}

// byName is the order of everything that is planned by channel.
func byName[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
