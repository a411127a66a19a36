package rollout

import "nixfleet/internal/fleet"

// Gate is a reason for which a host is not dispatched.
type Gate string

// The gates, in the order in which they are asked. The first that blocks is the
// host's deferral.
const (
	GateRecovering  Gate = "recovering"
	GateFreshness   Gate = "freshness"
	GatePaused      Gate = "paused"
	GateHalted      Gate = "halted"
	GateQuarantine  Gate = "quarantine"
	GateChannelEdge Gate = "channel-edge"
	GateWave        Gate = "wave"
	GateHostEdge    Gate = "host-edge"
	GateHealth      Gate = "health"
	GateBudget      Gate = "budget"
)

var sentences = map[Gate]string{
	GateRecovering:  "The control plane has lost a part of its memory and hands out nothing until it is told that it is whole again",
	GateFreshness:   "The host would refuse its manifest as stale",
	GatePaused:      "Its channel is paused",
	GateHalted:      "Its rollout is halted",
	GateQuarantine:  "Its target has failed in this channel and is in quarantine",
	GateChannelEdge: "Another channel goes first",
	GateWave:        "An earlier wave is not done",
	GateHostEdge:    "Another host goes first",
	GateHealth:      "A host of an earlier wave is not healthy",
	GateBudget:      "As many hosts as may be are under way already",
}

// Sentence says for people what the gate holds a host back for, without a full
// stop: what it blocks on follows.
func (g Gate) Sentence() string {
	if sentence, ok := sentences[g]; ok {
		return sentence
	}
	return "Held back by " + string(g)
}

// blocked asks the gates in their order. Each answers on what it blocks, or "".
// What it answers names causes and not counts, so that it changes, and is
// recorded, only when the cause does.
func (c *candidate) blocked() Deferral {
	for _, g := range [...]struct {
		gate Gate
		ask  func(*candidate) string
	}{
		{GateRecovering, gateRecovering},
		{GateFreshness, gateFreshness},
		{GatePaused, gatePaused},
		{GateHalted, gateHalted},
		{GateQuarantine, gateQuarantine},
		{GateChannelEdge, gateChannelEdge},
		{GateWave, gateWave},
		{GateHostEdge, gateHostEdge},
		{GateHealth, gateHealth},
		{GateBudget, gateBudget},
	} {
		if on := g.ask(c); on != "" {
			return Deferral{Gate: g.gate, Detail: on}
		}
	}
	return Deferral{}
}

// view is a rollout as its gates see it: what they would answer to each of its
// hosts alike is found once.
type view struct {
	p     *planner
	r     *Rollout
	plan  *plan
	slots *slots

	stale   string // freshness
	paused  string // paused
	halted  string // halted
	waitsOn string // channel-edge
	sick    sick   // health
}

func newView(p *planner, r *Rollout, s *slots) *view {
	return &view{
		p: p, r: r, plan: p.index.plans[r.ID], slots: s,
		stale: p.stale(r), paused: p.w.paused(r), halted: r.halted(), waitsOn: p.w.waitsOn(r), sick: p.sickest(r),
	}
}

// candidate is a host that waits for an order.
type candidate struct {
	*view
	*HostRow
	machine *Machine
	id      int32 // in the index
}

// listens tells whether an order can be handed to the host now: it has a poll
// parked, and it did not ask for more time when it refused the last one.
func (c *candidate) listens() bool {
	if !c.machine.Parked {
		return false
	}
	j := c.Reject
	return j == nil || c.p.w.Ready >= j.Retry || c.machine.Eased > j.Ready
}

// there tells whether the host runs and boots its target already.
func (c *candidate) there() bool {
	m := c.machine
	return m.HeartbeatAt > 0 && m.Current == c.Target && m.BootDefault == c.Target && c.Target != fleet.Closure("")
}
