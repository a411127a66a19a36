// Package activation takes a machine from one closure to another and back: fetch,
// preflight, switch or stage, confirm, persist, rollback. Each step is one function.
//
// It promises that a step may be interrupted at any instant and called again:
// what was begun is found and waited for, what was never begun is begun, what
// ended is judged by what the machine shows and never by what was asked. It needs
// from its caller one step at a time per machine, a Recorder that is durable
// before it returns, and an ActivationStarted that is committed before Switch. It
// never decides that a step is wanted, and never reports an outcome that nobody
// observed.
//
// Every step returns one of
//
//   - a body: an event to commit. Fetch and Preflight return a nil body when all
//     is well.
//   - a *Wait: nothing is lost and nothing is decided; ask again later.
//   - an error that wraps ctx.Err(): the caller wanted it to stop. A unit that
//     runs is left running.
package activation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// SwitchTimeout is how long a switch may take before its unit is killed.
const SwitchTimeout = lifecycle.SwitchSecs * time.Second

// exitUnseen stands for the exit code of a program that nobody saw end, or that
// was never started.
const exitUnseen = -1

// Spec is what the steps work from: one rollout on one machine.
type Spec struct {
	Rollout string
	Target  fleet.Closure
	Prior   fleet.Closure // what a failure goes back to; not used by Fetch and Preflight
	// Ran is what ran when the activation began, where that is not prior: the system
	// of a rollout that was superseded. "" where it is.
	Ran fleet.Closure

	// LockFile is flocked by whoever changes the machine: agent or guard. "" means
	// that the caller sees to that.
	LockFile string

	// Alone keeps units apart from the system's own targets, as host.Command has it.
	Alone bool

	Caches    []string // as host.Fetch
	CacheKeys []string

	MinFreeStore uint64 // bytes that must be free before the switch
	MinFreeBoot  uint64

	// DeferOn names components that may not be swapped while the system runs, where
	// the closures do not say it themselves.
	DeferOn []string
	// Guarded wants the units of agent and guard in the target: without them
	// nobody would bring the machine back from it.
	Guarded bool

	OnHealthFailure string // the signed policy, told with a target that is given up

	MaxFailedUnits int           // newly failed units that a switch may leave
	SwitchTimeout  time.Duration // 0 means the constant SwitchTimeout

	// LastUplink, when set, tells when the control plane or a cache last answered;
	// Preflight wants that to be recent.
	LastUplink func() time.Time

	// Progress, when set, hears how far a fetch has come.
	Progress func(host.FetchProgress)
}

// Wait is an answer of a step that could neither succeed nor fail yet.
type Wait struct {
	On  wire.WaitingOn
	Err error // why, for people
}

func (w *Wait) Error() string { return fmt.Sprintf("waiting on %s: %v", w.On, w.Err) }

func (w *Wait) Unwrap() error { return w.Err }

// Step names what a Recorder keeps a mark of.
type Step string

// The steps that leave a mark.
const (
	StepFetch  Step = "fetch"
	StepSwitch Step = "switch"
)

// Mark is what must be known about a step after a crash. The zero Mark means
// that the step was not begun.
type Mark struct {
	BootID string `json:"bootId"` // in which the step was begun
	// RunID is the unit's, once it has one: only a result with this id counts.
	RunID string `json:"runId,omitempty"`
	// Before is the health of the machine's units before the switch.
	Before host.Units `json:"before,omitzero"`
	// Again: the end of a first run was not seen, and this is the second.
	Again bool `json:"again,omitempty"`
}

// Recorder keeps marks, by rollout and step, in the agent's journal.
type Recorder interface {
	// Recall returns the mark, or the zero Mark.
	Recall(ctx context.Context, rollout string, step Step) (Mark, error)
	// Record replaces the mark. It is durable when Record returns nil.
	Record(ctx context.Context, rollout string, step Step, m Mark) error
}

// transient answers an error of the machine or of the journal, which is nobody's
// verdict on the target: ask again.
func transient(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	var w *Wait
	if errors.As(err, &w) {
		return err
	}
	return &Wait{On: wire.WaitingOnNone, Err: fmt.Errorf("%s: %w", what, err)}
}
