package agent

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"time"

	"nixfleet/internal/agent/probe"
)

// Config is everything that an agent is told at its start. Paths are absolute.
type Config struct {
	ControlPlane *url.URL
	MachineID    string
	PollInterval time.Duration

	TrustFile          string
	CACertFile         string // "" means the system's roots
	ClientCertFile     string
	ClientKeyFile      string
	BootstrapTokenFile string // "" means: never enrol
	SSHHostKeyFile     string
	StateDir           string
	HealthChecksFile   string

	ComplianceMode     string        // of manifests that name none: fleet's words, or auto
	RenewalThreshold   float64       // fraction of a certificate's validity that is left
	MaxFreshnessWindow time.Duration // 0: the signed window alone
	ClockPolicy        ClockPolicy
	MaxClockSkew       time.Duration

	DeferOn     []string
	MinFreeNix  uint64
	MinFreeBoot uint64
	CacheURLs   []string
	ConfirmURLs []string

	Socket        string // "" means none
	MetricsListen string // "" means none
	Prefetch      bool   // fetch a target as soon as a manifest names it, before its order
	OutboxMax     int64  // bytes

	Version string
	BuiltAt time.Time // of the commit that this program was built from; zero when unknown
	Log     *slog.Logger

	// Guard is the command that guards this agent: its own program, by an absolute
	// path that the next system does not change, and the arguments.
	Guard []string

	// Notify tells the service manager a state such as "READY=1".
	Notify func(state string)
	// Watchdog is how often it wants to hear that the agent lives; 0 is never.
	Watchdog time.Duration
	// CheckJournal looks for damage where a fault cannot hurt this process: in a
	// child. Nil means that the check is made here. An error that wraps
	// context.Canceled says that it was ended, and nothing about the journal.
	CheckJournal func(ctx context.Context, path string) error
	// Clock tells whether the kernel's clock is synchronised. Nil asks the kernel.
	Clock func() ClockState
	// Probes is what health checks touch. The zero value is this machine.
	Probes probe.Machine
}

// MarksFile is where the marks of accepted documents are, beside the journal.
func (c Config) MarksFile() string { return filepath.Join(c.StateDir, "marks.json") }

// Other paths below the state directory.
func (c Config) journalFile() string        { return filepath.Join(c.StateDir, "journal.db") }
func (c Config) activationLockFile() string { return filepath.Join(c.StateDir, "activation.lock") }
