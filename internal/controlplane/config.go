package controlplane

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"nixfleet/internal/identity"
)

// Defaults of Config.
const (
	DefaultHeartbeat      = 60 * time.Second
	DefaultSourceInterval = 30 * time.Second
)

// Config is everything that a control plane is made of but its listeners.
type Config struct {
	DB            string   // "sqlite:PATH" or a path
	ReleaseSource []string // folders that hold signed documents
	TrustFile     string   // trust.json

	TLSCert, TLSKey string // of the server; read again when they change
	ClientCA        string // PEM: who signs the certificates of agents and operators

	// The authority that signs agents' certificates. Without one nobody can enrol
	// or renew.
	CACert, CAKey     string
	AgentCertValidity time.Duration
	AgentCertSuffix   string // of the common name; may be empty
	IssuanceLog       string // JSON lines, one a certificate; empty: beside the database

	Heartbeat      time.Duration // what hosts are told
	SourceInterval time.Duration // how often sources are asked

	Version string
	Log     *slog.Logger
}

// ConfigError is a setting that cannot work.
type ConfigError struct {
	Flag, Value, Allowed string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("--%s %q: %s", e.Flag, e.Value, e.Allowed)
}

// Check tells what is wrong with the settings as such; files are looked at by New.
func (c Config) Check() error {
	var errs []error
	needed := func(flag, value, what string) {
		if value == "" {
			errs = append(errs, &ConfigError{flag, value, what + " is required"})
		}
	}
	if _, err := databaseFile(c.DB); err != nil {
		errs = append(errs, err)
	}
	if len(c.ReleaseSource) == 0 {
		errs = append(errs, &ConfigError{"release-source", "", "at least one folder with signed documents is required"})
	}
	needed("trust-file", c.TrustFile, "the path of trust.json")
	needed("tls-cert", c.TLSCert, "the server's certificate")
	needed("tls-key", c.TLSKey, "the server's key")
	needed("client-ca", c.ClientCA, "the certificate of who signs clients")
	if (c.CACert == "") != (c.CAKey == "") {
		errs = append(errs, &ConfigError{"ca-cert", c.CACert, "--ca-cert and --ca-key belong together"})
	}
	if c.AgentCertValidity < identity.MinValidity {
		errs = append(errs, &ConfigError{"agent-cert-validity", c.AgentCertValidity.String(), "at least " + identity.MinValidity.String() + " is allowed"})
	}
	if c.Heartbeat < time.Second || c.Heartbeat > time.Hour {
		errs = append(errs, &ConfigError{"heartbeat", c.Heartbeat.String(), "1s to 1h are allowed"})
	}
	if c.SourceInterval < 100*time.Millisecond {
		errs = append(errs, &ConfigError{"source-interval", c.SourceInterval.String(), "at least 100ms is allowed"})
	}
	return errors.Join(errs...)
}

// databaseFile is the file of the embedded database.
func databaseFile(db string) (string, error) {
	scheme, rest, found := strings.Cut(db, ":")
	switch {
	case db == "":
		return "", &ConfigError{"db", db, "sqlite:PATH is required"}
	case !found, strings.HasPrefix(db, "/"), strings.HasPrefix(db, "."):
		return db, nil
	case scheme == "sqlite" && rest != "":
		return strings.TrimPrefix(rest, "//"), nil
	}
	return "", &ConfigError{"db", db, "sqlite:PATH is allowed"}
}
