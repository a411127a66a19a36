package rollout

// Gate is a reason for which a host is not dispatched.
type Gate string

// The gates, in the order in which they are asked; the first that blocks is the
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
