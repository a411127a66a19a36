package host

import (
	"context"
	"time"
)

// Guarding is what a machine offers to the dead man's switch over its agent, and
// to the agent that arms it.
type Guarding interface {
	// StartGuard starts a guard in the unit of SlotGuard, which Status and Clear
	// know like any other. It outlives the caller, and where there is a service
	// manager it is started again when it dies. ErrSlotTaken: as for Start.
	StartGuard(ctx context.Context, g GuardUnit) error

	// BeAgent makes the calling process the machine's agent until release, where
	// no service manager sees to that. It waits as long as another one is the
	// agent, or StopAgent keeps it down.
	BeAgent(ctx context.Context) (release func(), err error)

	// StopAgent ends the agent, with time to say good-bye first, and then in a way
	// that a stopped or frozen process cannot resist. It stays down until
	// StartAgent. It returns nil when nothing of it runs any more.
	StopAgent(ctx context.Context) error

	// StartAgent lets the agent run again. It does not wait for its start.
	StartAgent(ctx context.Context) error

	// SystemState is what the machine is about.
	SystemState(ctx context.Context) (SystemState, error)

	// Clock is the running time of this boot, the same for all processes: it
	// stands still in suspend, and nobody sets it. Its zero means nothing.
	Clock() time.Duration

	// BootDir is a folder of ours that every boot begins anew.
	BootDir() string
}

// SlotGuard is the unit of the guard that an agent starts.
const SlotGuard Slot = "nixfleet-guard-now"

// GuardUnit is a guard to be started.
type GuardUnit struct {
	Program  string // absolute
	Args     []string
	StateDir string // without which it is of no use
}

// SystemState is what the machine is about.
type SystemState string

// The states that a guard tells apart.
const (
	SystemUp          SystemState = "up" // or starting
	SystemMaintenance SystemState = "maintenance"
	SystemStopping    SystemState = "stopping"
)
