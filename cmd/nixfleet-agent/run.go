package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nixfleet/internal/agent"
	"nixfleet/internal/buildinfo"
)

const (
	// drain is how long a stopping agent may take.
	drain = 20 * time.Second

	// An idle agent's heap is far below this; the limit makes the runtime give back
	// what verifying a large manifest took.
	memoryLimit = 24 << 20
	gcPercent   = 50
)

// runCmd is the daemon.
type runCmd struct {
	ControlPlaneURL    httpsURL    `name:"control-plane-url" required:"" env:"NIXFLEET_AGENT_CONTROL_PLANE_URL,NIXFLEET_AGENT_CP_URL" placeholder:"URL" help:"The control plane, https://host[:port]."`
	MachineID          machineID   `required:"" placeholder:"NAME" help:"This host's name in the fleet; must equal the certificate's."`
	PollInterval       seconds     `default:"60s" placeholder:"TIME" help:"Heartbeat and document refresh, unless the control plane says otherwise."`
	TrustFile          string      `default:"/etc/nixfleet/agent/trust.json" placeholder:"FILE" help:"The pinned keys."`
	CACert             string      `placeholder:"FILE" help:"The only roots for the control plane's certificate; the system's when unset."`
	ClientCert         string      `placeholder:"FILE" help:"This host's certificate; <state-dir>/agent-cert.pem when unset."`
	ClientKey          string      `placeholder:"FILE" help:"Its ed25519 key, PEM or OpenSSH; the SSH host key when unset."`
	BootstrapTokenFile string      `placeholder:"FILE" help:"Enrol with this token when there is no usable certificate."`
	StateDir           string      `default:"/var/lib/nixfleet-agent" placeholder:"DIR" help:"Where the agent remembers; must survive reboots."`
	ComplianceGateMode string      `default:"auto" enum:"disabled,permissive,enforce,auto" placeholder:"MODE" help:"What evidence probes count for where the signed manifest does not say: ${enum}. auto is permissive where compliance-evidence-collector.service exists, else disabled."`
	SSHHostKeyFile     string      `name:"ssh-host-key-file" default:"/etc/ssh/ssh_host_ed25519_key" placeholder:"FILE" help:"Signs events and evidence."`
	HealthChecksConfig string      `default:"/etc/nixfleet/agent/health-checks.json" placeholder:"FILE" help:"The probes of this system."`
	RenewalThreshold   fraction    `default:"0.5" placeholder:"FRACTION" help:"Renew when this fraction of the certificate's validity is left."`
	MaxFreshnessWindow seconds     `default:"0s" placeholder:"TIME" help:"Narrows, never widens, the signed freshness window; 0 leaves it as it is."`
	ClockPolicy        string      `default:"auto" enum:"auto,require,trust" placeholder:"POLICY" help:"When the clock is believed: ${enum}."`
	MaxClockSkew       seconds     `default:"300s" placeholder:"TIME" help:"Report an offset from the control plane's clock beyond this."`
	DeferOn            []component `default:"dbus,systemd,kernel" placeholder:"LIST" help:"Components that may not be swapped live."`
	MinFreeNix         byteSize    `default:"1GiB" placeholder:"SIZE" help:"Free space that must be left on /nix before a switch."`
	MinFreeBoot        byteSize    `default:"64MiB" placeholder:"SIZE" help:"The same of the boot file system."`
	CacheURL           []cacheURL  `name:"cache-url" sep:"," placeholder:"URL" help:"Binary cache, most wanted first; nix.conf's substituters when unset. Repeatable."`
	ConfirmURL         []httpsURL  `name:"confirm-url" sep:"," placeholder:"URL" help:"Further uplink that confirms a new system. Repeatable."`
	Socket             string      `default:"/run/nixfleet-agent/agent.sock" placeholder:"FILE" help:"Local status and control; empty for none."`
	MetricsListen      string      `placeholder:"ADDRESS" help:"Serve Prometheus metrics here; :port is on loopback."`
	Prefetch           bool        `help:"Fetch the closure of the newest manifest that names this host before its order comes. Nothing is accepted by it."`
	OutboxMax          byteSize    `default:"64MiB" placeholder:"SIZE" help:"Beyond this much unsent, only transitions are committed."`
	LogFormat          string      `default:"auto" enum:"auto,json,text" placeholder:"FORMAT" help:"${enum}."`
	LogLevel           level       `default:"info" placeholder:"LEVEL" help:"debug, info, warn or error."`
	HostBackend        kind        `default:"auto" placeholder:"KIND" help:"auto, nixos, darwin, or dirhost:<dir> (a machine that lives in a directory)."`
}

func (c *runCmd) Run(e *env) error {
	cfg, err := c.config(e)
	if err != nil {
		return err
	}
	limitMemory()
	machine, err := c.HostBackend.open()
	if err != nil {
		return err
	}
	defer machine.Close()
	a, err := agent.New(cfg, machine, nil)
	if err != nil {
		return err
	}
	context.AfterFunc(e.ctx, func() {
		time.AfterFunc(drain, func() {
			cfg.Log.Error("not stopped in time", "limit", drain.String())
			os.Exit(exitNo)
		})
	})
	return a.Run(e.ctx)
}

// config makes the agent's settings of the flags.
func (c *runCmd) config(e *env) (agent.Config, error) {
	for _, path := range []*string{&c.TrustFile, &c.CACert, &c.ClientCert, &c.ClientKey, &c.BootstrapTokenFile, &c.StateDir, &c.SSHHostKeyFile, &c.HealthChecksConfig, &c.Socket} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return agent.Config{}, err
		}
		*path = absolute
	}
	if c.PollInterval == 0 {
		return agent.Config{}, &wrongUse{fmt.Errorf("--poll-interval: 0 is not allowed: want at least 1s")}
	}
	var listen address
	if c.MetricsListen != "" {
		if err := listen.UnmarshalText([]byte(c.MetricsListen)); err != nil {
			return agent.Config{}, &wrongUse{fmt.Errorf("--metrics-listen: %w", err)}
		}
	}
	if c.ClientCert == "" {
		c.ClientCert = filepath.Join(c.StateDir, "agent-cert.pem")
	}
	if c.ClientKey == "" {
		c.ClientKey = c.SSHHostKeyFile
	}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return agent.Config{}, fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	guard, err := guardCommand(c.StateDir, c.HostBackend)
	if err != nil {
		return agent.Config{}, err
	}
	cfg := agent.Config{
		Guard:              guard,
		ControlPlane:       c.ControlPlaneURL.parsed(),
		MachineID:          string(c.MachineID),
		PollInterval:       time.Duration(c.PollInterval),
		TrustFile:          c.TrustFile,
		CACertFile:         c.CACert,
		ClientCertFile:     c.ClientCert,
		ClientKeyFile:      c.ClientKey,
		BootstrapTokenFile: c.BootstrapTokenFile,
		SSHHostKeyFile:     c.SSHHostKeyFile,
		StateDir:           c.StateDir,
		HealthChecksFile:   c.HealthChecksConfig,
		ComplianceMode:     c.ComplianceGateMode,
		RenewalThreshold:   float64(c.RenewalThreshold),
		MaxFreshnessWindow: time.Duration(c.MaxFreshnessWindow),
		ClockPolicy:        agent.ClockPolicy(c.ClockPolicy),
		MaxClockSkew:       time.Duration(c.MaxClockSkew),
		MinFreeNix:         uint64(c.MinFreeNix),
		MinFreeBoot:        uint64(c.MinFreeBoot),
		Socket:             c.Socket,
		MetricsListen:      string(listen),
		Prefetch:           c.Prefetch,
		OutboxMax:          int64(c.OutboxMax),
		Version:            buildinfo.Version(),
		BuiltAt:            buildinfo.CommitTime(),
		Log:                c.logger(e),
		Notify:             notify,
		Watchdog:           watchdog,
		CheckJournal:       checkJournal,
	}
	for _, d := range c.DeferOn {
		cfg.DeferOn = append(cfg.DeferOn, string(d))
	}
	for _, u := range c.CacheURL {
		cfg.CacheURLs = append(cfg.CacheURLs, string(u))
	}
	for _, u := range c.ConfirmURL {
		cfg.ConfirmURLs = append(cfg.ConfirmURLs, string(u))
	}
	return cfg, nil
}

func (c *runCmd) logger(e *env) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(c.LogLevel)}
	if c.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(e.err, options))
	}
	return slog.New(slog.NewJSONHandler(e.err, options))
}

// notify tells systemd a state. Without systemd there is nobody to tell.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// limitMemory keeps the agent small, unless somebody set the runtime's own
// variables.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
