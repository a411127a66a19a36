// Package host says what may be done to a machine.
//
// It promises one interface, Machine, behind which a NixOS host and a machine
// that lives in a directory look alike: reading facts, fetching signed closures,
// running a closure's own switch program in a unit that outlives the agent,
// setting the profile. It needs a caller that decides; a backend never does: it
// does one thing and says what happened. It never takes an outcome for granted:
// what it returns was read from the machine after the fact.
//
// Backends are the packages below this one. Package activation is their only
// caller that changes anything.
package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"nixfleet/internal/fleet"
)

// Machine is one host. All methods may be called at any time and from several
// goroutines, and are idempotent where their comment does not say otherwise.
type Machine interface {
	Guarding

	// Facts reads what runs, what boots next, and which boot this is.
	Facts(ctx context.Context) (Facts, error)

	// Path is where the closure's files can be read, whether it is there or not.
	Path(c fleet.Closure) string

	// Fetch brings a closure and all that it refers to into the store, signed,
	// held by a GC root and durable, before it returns nil. Errors are
	// *FetchError, or ctx's. It changes nothing that runs.
	Fetch(ctx context.Context, f Fetch) error

	// SetRoots makes the given closures, and no others, survive a garbage
	// collection on our account. Closures that are not in the store are left out.
	SetRoots(ctx context.Context, want []fleet.Closure) error

	// Space is what is free where closures and boot files go.
	Space(ctx context.Context) (Space, error)

	// Start starts the command in the slot's unit and returns the id of this run
	// once the unit has one. The unit outlives the caller. ErrSlotTaken: the slot
	// holds a run, living or ended, that was not cleared.
	Start(ctx context.Context, s Slot, c Command) (runID string, err error)

	// Status is the run that the slot holds. The end of a run is told within
	// Poll of its happening by whoever asks that often.
	Status(ctx context.Context, s Slot) (Run, error)

	// Clear stops what runs in the slot, waits until it is gone, and forgets it.
	Clear(ctx context.Context, s Slot) error

	// SwitchLocked tells whether some switch program, ours or another's, holds
	// the machine's switch lock now. It takes no lock.
	SwitchLocked(ctx context.Context) (bool, error)

	// Units is the health of the machine's own services.
	Units(ctx context.Context) (Units, error)

	// SetProfile makes the closure the newest generation of the system profile,
	// durably, and returns the generation's number. It does not touch the boot
	// default.
	SetProfile(ctx context.Context, c fleet.Closure) (generation int, err error)

	// SyncBoot makes what a boot loader was told durable.
	SyncBoot(ctx context.Context) error

	// Reboot asks for an orderly reboot, and returns when the machine has agreed;
	// it goes down soon after. Who blocks a shutdown is not overruled.
	// ErrNotSupported: this backend cannot.
	Reboot(ctx context.Context) error

	// Close ends the backend's connections. Units run on.
	Close() error
}

// Poll is how often the end of a unit is looked for. Nothing waits for signals of
// the init system: a re-executed systemd drops them silently.
const Poll = 100 * time.Millisecond

// Facts is a machine, observed.
type Facts struct {
	Current fleet.Closure // what runs; "" when that is no path of the store
	Booted  fleet.Closure // what this boot began with; "" when unknown
	Profile fleet.Closure // the system profile's current generation; "" when there is none
	// Generation is the number of that generation, 0 when there is none.
	Generation int

	// BootDefault is what the next boot brings. When no boot loader could be
	// asked it is the profile, and BootDefaultVerified is false.
	BootDefault         fleet.Closure
	BootDefaultVerified bool

	BootID string // new at every boot
	System string // Nix's name of the platform, such as x86_64-linux
}

// Fetch is what to fetch, and whom to believe.
type Fetch struct {
	Rollout   string // names the GC root
	Closure   fleet.Closure
	Caches    []string // binary caches, most wanted first; empty means the machine's own settings
	CacheKeys []string // "name:base64"; a path counts only when one of them signed it
	// Repair makes what is already in the store prove its contents: a power cut
	// may have left valid paths with empty files.
	Repair bool
	// Progress, when set, is told now and then what has arrived.
	Progress func(FetchProgress)
}

// FetchProgress is how far a fetch has come.
type FetchProgress struct {
	Paths int   // store paths that arrived
	Bytes int64 // of them, unpacked; 0 when unknown
}

// FetchKind tells a caller what a failed fetch means.
type FetchKind string

// The kinds of failed fetches. Only BadSignature and NoKeys are final.
const (
	FetchBadSignature FetchKind = "bad-signature" // no cache has it signed by a pinned key
	FetchNoKeys       FetchKind = "no-cache-keys" // nothing is pinned, so nothing may be fetched
	FetchMissing      FetchKind = "missing"       // no cache has it, or none lets us
	FetchCacheDown    FetchKind = "cache-down"    // no cache answers
	FetchCorrupt      FetchKind = "corrupt"       // what came was not what was promised
	FetchNoSpace      FetchKind = "no-space"
	FetchLocked       FetchKind = "locked" // another process holds the path or the database
	FetchOther        FetchKind = "other"
)

// FetchError is a fetch that did not succeed.
type FetchError struct {
	Kind    FetchKind
	Closure fleet.Closure
	Detail  string // what the fetcher said last, at most 4 KiB
	Err     error  // may be nil
}

func (e *FetchError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("fetch %s: %s: %v", e.Closure, e.Kind, e.Err)
	}
	return fmt.Sprintf("fetch %s: %s", e.Closure, e.Kind)
}

func (e *FetchError) Unwrap() error { return e.Err }

// Space is free bytes for somebody who is not privileged.
type Space struct {
	Store uint64
	Boot  uint64
	// BootKnown is false where no boot file system was found.
	BootKnown bool
}

// Slot is the name of a unit that holds at most one run. Slots are never named
// in any other unit's dependencies: that would make their names unusable.
type Slot string

// The slots.
const (
	SlotSwitch   Slot = "nixfleet-switch"
	SlotBoot     Slot = "nixfleet-boot"
	SlotRollback Slot = "nixfleet-rollback"
)

// Action is what a closure's switch program is asked to do.
type Action string

// The actions.
const (
	ActionTest Action = "test" // make it live; the boot default stays
	ActionBoot Action = "boot" // make it the boot default; what runs stays
)

// Command is a run of <closure>/bin/switch-to-configuration, executed directly.
type Command struct {
	Rollout string
	Closure fleet.Closure
	Action  Action
	NoCheck bool          // skip pre-switch checks: the way back must not be refused
	Timeout time.Duration // after which the unit is killed as a whole
	// Alone keeps the unit apart from the system's own targets, so that it also
	// runs in emergency mode and while shutting down. For the guard.
	Alone bool
}

// RunPhase is where a run is.
type RunPhase int

// The phases of a run.
const (
	RunAbsent  RunPhase = iota // the slot holds none, or one whose end nobody saw
	RunRunning                 // started, not ended
	RunEnded                   // ended, Result says how
)

// Run is what a slot holds.
type Run struct {
	Phase RunPhase
	ID    string // of this very run; "" when absent

	// What was started.
	Rollout string
	Closure fleet.Closure
	Action  Action

	// How it ended. Result is read first: a run that was killed by its time
	// limit can have the exit code 0.
	Result   string // ResultSuccess, ResultExitCode, or another word of systemd's
	ExitCode int    // the program's, or 128 + the signal that killed it
	Output   string // its last OutputMax bytes, valid UTF-8
}

// Results of a run that are decided by. Others are failures.
const (
	ResultSuccess  = "success"
	ResultExitCode = "exit-code"
	ResultSignal   = "signal"
	ResultTimeout  = "timeout"
)

// Exited tells whether the program ended by itself with the given code.
func (r Run) Exited(code int) bool {
	switch r.Result {
	case ResultSuccess, ResultExitCode:
		return r.Phase == RunEnded && r.ExitCode == code
	}
	return false
}

// OutputMax is how much of a run's output is kept, in bytes.
const OutputMax = 4096

// Units is the health of a machine's services.
type Units struct {
	// Failed are units that failed or wait to be restarted, sorted.
	Failed []string `json:"failed,omitempty"`
	// Restarts counts automatic restarts by unit, where there were any.
	Restarts map[string]uint32 `json:"restarts,omitempty"`
	// Settled is false while the machine is still starting up.
	Settled bool `json:"settled,omitempty"`
}

// UnitState is what systemd says about one unit, in its words.
type UnitState struct {
	Load, Active string
	Result       string // "" where the unit's type has none
}

// UnitReader is a machine whose services systemd manages.
type UnitReader interface {
	// UnitState asks about a unit by its whole name. One that is not known has the
	// load state "not-found" and is no error. ErrNoSystemd: it does not run.
	UnitState(ctx context.Context, name string) (UnitState, error)
}

// ErrNoSystemd: nobody can be asked about units.
var ErrNoSystemd = errors.New("there is no systemd on this host")

// ErrSlotTaken: the slot holds a run that was not cleared.
var ErrSlotTaken = errors.New("the unit's name is taken")

// ErrNotSupported: this backend cannot do that.
var ErrNotSupported = errors.New("not supported by this kind of host")

// System is Nix's name of the platform that this program runs on.
func System() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l", "riscv64": "riscv64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return arch + "-" + runtime.GOOS
}
