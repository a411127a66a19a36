package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/durable"
	"nixfleet/internal/fleet"
)

// Lease is what is guarded. It is written anew only when its structure changes;
// that the agent lives is shown elsewhere.
type Lease struct {
	Rollout string        `json:"rollout"`
	Target  fleet.Closure `json:"target"`
	Prior   fleet.Closure `json:"prior"`
	Agent   string        `json:"agent"`  // path of the program that guards: prior's agent
	BootID  string        `json:"bootId"` // in which it was written

	// ConfirmBy is the machine's clock in nanoseconds, in the boot BootID, at which
	// the guard acts when nothing was confirmed; 0 when silence alone counts.
	// ConfirmActive is the rollout's running time that it was made of.
	ConfirmBy     int64 `json:"confirmBy,omitempty"`
	ConfirmActive int64 `json:"confirmActive,omitempty"`

	WindowSecs int  `json:"windowSecs,omitempty"` // in another boot: how long after its beginning; 0: silence alone counts
	AliveSecs  int  `json:"aliveSecs"`            // silence of the agent after which the guard acts
	Confirmed  bool `json:"confirmed,omitempty"`
	// DeferOn has the components that may not be swapped live, separated by commas.
	DeferOn string `json:"deferOn,omitempty"`
	// NextBoot: nothing is at stake before the next boot, so only its guard watches.
	NextBoot bool `json:"nextBoot,omitempty"`

	// Why a guard acts, so that the one that finishes what it began says it too. Only
	// in a claimed lease.
	Why string `json:"why,omitempty"`
	// Rebooted: a guard has asked for a boot once. Only in a claimed lease.
	Rebooted bool `json:"rebooted,omitempty"`
}

// Beat is how often the agent shows that it lives.
func (l Lease) Beat() time.Duration { return time.Duration(l.AliveSecs) * time.Second / 4 }

// Extends tells whether l, written by an agent that has started again, would do
// nothing but put off the deadline of the lease that is there, or move it by the
// second that a running time is rounded to. An agent that dies again and again
// must not put off its own guard.
func (l Lease) Extends(there Lease) bool {
	later := l.ConfirmBy > there.ConfirmBy-int64(2*time.Second)
	l.ConfirmBy = there.ConfirmBy
	return later && l == there
}

// Files are where a guard and its agent meet.
type Files struct {
	StateDir string
	BootDir  string
}

// FilesOf are those of a machine whose agent has the state directory.
func FilesOf(m host.Machine, stateDir string) Files {
	return Files{StateDir: stateDir, BootDir: m.BootDir()}
}

func (f Files) lease() string   { return filepath.Join(f.StateDir, "lease") }
func (f Files) claimed() string { return filepath.Join(f.StateDir, "lease.claimed") }
func (f Files) outcome() string { return filepath.Join(f.StateDir, "guard-outcome") }
func (f Files) link() string    { return filepath.Join(f.StateDir, "guard") }
func (f Files) lock() string    { return filepath.Join(f.StateDir, "activation.lock") }
func (f Files) journal() string { return filepath.Join(f.StateDir, "journal.db") }
func (f Files) only() string    { return filepath.Join(f.BootDir, "lock") }
func (f Files) alive() string   { return filepath.Join(f.BootDir, "alive") }
func (f Files) since() string   { return filepath.Join(f.BootDir, "since") }

// Held tells whether there is a lease, claimed or not, readable or not.
func (f Files) Held() bool {
	for _, path := range []string{f.lease(), f.claimed()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// Program is what the link leads to; "" when there is none.
func (f Files) Program() string {
	path, err := os.Readlink(f.link())
	if err != nil {
		return ""
	}
	return path
}

// Lease reads the lease, claimed or not; nil when there is none.
func (f Files) Lease() (*Lease, error) {
	for _, path := range []string{f.claimed(), f.lease()} {
		var l Lease
		err := readJSON(path, &l)
		if err == nil {
			return &l, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the lease: %w", err)
		}
	}
	return nil, nil
}

// Write makes l the lease, durably, and the link lead to its program. A lease
// that l would only put off stays.
func (f Files) Write(l Lease) error {
	there, err := f.Lease()
	if err == nil && there != nil && l.Extends(*there) {
		return nil
	}
	if err := durable.Symlink(l.Agent, f.link()); err != nil {
		return fmt.Errorf("link the guard: %w", err)
	}
	crashpoint.Here("guard/linked", "the guard's program is linked; there is no lease with what it says")
	if err := writeJSON(f.lease(), l); err != nil {
		return fmt.Errorf("write the lease: %w", err)
	}
	crashpoint.Here("guard/leased", "the lease is written; no guard was started for it")
	return nil
}

// Remove ends the guarding, durably. Signs of life go as well, so that they do
// not count for the next lease.
func (f Files) Remove() error {
	for _, path := range []string{f.lease(), f.claimed(), f.alive(), f.since()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the lease: %w", err)
		}
	}
	return durable.SyncDir(f.StateDir)
}

// claim makes the lease one that a guard acts on.
func (f Files) claim(l Lease) error {
	if err := writeJSON(f.claimed(), l); err != nil {
		return fmt.Errorf("claim the lease: %w", err)
	}
	crashpoint.Here("guard/claim-written", "the lease is there twice, claimed and not")
	if err := os.Remove(f.lease()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("claim the lease: %w", err)
	}
	return durable.SyncDir(f.StateDir)
}

// Claimed tells whether a guard has begun to act.
func (f Files) Claimed() bool {
	_, err := os.Lstat(f.claimed())
	return !errors.Is(err, os.ErrNotExist)
}

// Outcome is what a guard did.
type Outcome struct {
	Rollout string        `json:"rollout"`
	Prior   fleet.Closure `json:"prior"` // which runs and boots
	Why     string        `json:"why"`
	At      time.Time     `json:"at"`
}

// Outcome reads what a guard did; nil for nothing.
func (f Files) Outcome() (*Outcome, error) {
	var o Outcome
	err := readJSON(f.outcome(), &o)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the guard did: %w", err)
	}
	return &o, nil
}

// ForgetOutcome removes what was committed.
func (f Files) ForgetOutcome() error {
	if err := os.Remove(f.outcome()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.SyncDir(f.StateDir)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// writeJSON replaces a file, private to its owner, atomically and durably.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}
