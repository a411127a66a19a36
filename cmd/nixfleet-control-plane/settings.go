package main

import (
	"log/slog"
	"time"

	"nixfleet/internal/buildinfo"
	"nixfleet/internal/controlplane"
)

// database is where the state is.
type database struct {
	DB string `name:"db" default:"sqlite:/var/lib/nixfleet-control-plane/state.db" placeholder:"sqlite:PATH" help:"The database."`
}

// settings are what serve and check have in common.
type settings struct {
	database          `embed:""`
	ReleaseSource     []string      `sep:"none" placeholder:"DIR" help:"Folder of signed documents. Repeatable."`
	SourceInterval    time.Duration `default:"30s" placeholder:"TIME" help:"How often sources are looked at."`
	TrustFile         string        `default:"/etc/nixfleet/control-plane/trust.json" placeholder:"FILE" help:"The pinned keys."`
	TLSCert           string        `name:"tls-cert" placeholder:"FILE" help:"The server's certificate, PEM; read again when it changes."`
	TLSKey            string        `name:"tls-key" placeholder:"FILE" help:"Its key, PEM."`
	ClientCA          string        `name:"client-ca" placeholder:"FILE" help:"Who signs the certificates of agents and operators, PEM."`
	CACert            string        `name:"ca-cert" placeholder:"FILE" help:"The authority that signs agents' certificates, PEM; nobody can enrol when unset."`
	CAKey             string        `name:"ca-key" placeholder:"FILE" help:"Its key, PEM, mode 0600."`
	AgentCertValidity time.Duration `default:"720h" placeholder:"TIME" help:"How long agents' certificates are valid; at least 1m."`
	AgentCertSuffix   string        `placeholder:"DOMAIN" help:"Agents' common names are agent-<host>.<DOMAIN>; the bare host name when unset."`
	IssuanceLog       string        `placeholder:"FILE" help:"One JSON line for each certificate; issuances.jsonl beside the database when unset."`
	Heartbeat         time.Duration `default:"60s" placeholder:"TIME" help:"How often hosts report; 1s to 1h."`
	LogFormat         string        `default:"json" enum:"json,text" placeholder:"FORMAT" help:"${enum}."`
	LogLevel          slog.Level    `default:"info" placeholder:"LEVEL" help:"debug, info, warn or error."`
}

func (s *settings) config(e *env) controlplane.Config {
	return controlplane.Config{
		DB: s.DB, ReleaseSource: s.ReleaseSource, SourceInterval: s.SourceInterval, TrustFile: s.TrustFile,
		TLSCert: s.TLSCert, TLSKey: s.TLSKey, ClientCA: s.ClientCA,
		CACert: s.CACert, CAKey: s.CAKey, AgentCertValidity: s.AgentCertValidity, AgentCertSuffix: s.AgentCertSuffix,
		IssuanceLog: s.IssuanceLog, Heartbeat: s.Heartbeat,
		Version: buildinfo.Version(), Log: s.logger(e),
	}
}

func (s *settings) logger(e *env) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.LogLevel}
	if s.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(e.err, options))
	}
	return slog.New(slog.NewJSONHandler(e.err, options))
}
