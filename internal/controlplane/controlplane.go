// Package controlplane puts a control plane together and runs it: store, core,
// sources, authority and HTTP.
//
// It promises that many can live in one process: each has its own registry of
// metrics, its own database and its own listeners, and no signal or global is
// used. Run returns when its context has ended, requests have been answered, the
// last batch is committed and the database is closed.
//
// It needs a database that no other control plane uses at the same time.
package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"nixfleet/internal/controlplane/api"
	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/issuer"
	"nixfleet/internal/controlplane/metrics"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/identity"
)

// stopTimeout is how long requests may take to end when the control plane stops.
const stopTimeout = 15 * time.Second

// ControlPlane is one control plane. Make it with New, then call Run or Close.
type ControlPlane struct {
	config   Config
	store    store.Store
	core     *core.Core
	metrics  *metrics.Metrics
	releases *releases
	clients  *x509.CertPool
	server   *keyPair
	issuer   *issuer.Issuer // nil without an authority
}

// New opens the database, reads what the configuration names, and reads the
// state. It starts nothing.
func New(ctx context.Context, c Config) (*ControlPlane, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	cp := &ControlPlane{config: c, metrics: metrics.New()}
	var err error
	if cp.server, err = loadKeyPair(c.TLSCert, c.TLSKey); err != nil {
		return nil, err
	}
	// It may be a group's, as that of whoever renews it; the CA's never is.
	if err := identity.CheckPrivate(c.TLSKey); err != nil {
		c.Log.Warn("a secret is not private", "what", "the server's key", "err", err)
	}
	if cp.clients, err = loadPool(c.ClientCA); err != nil {
		return nil, err
	}
	if cp.issuer, err = newIssuer(c); err != nil {
		return nil, err
	}
	if cp.store, err = openStore(ctx, c.DB); err != nil {
		return nil, err
	}
	cp.core, err = core.New(ctx, core.Options{Store: cp.store, Log: c.Log, Metrics: cp.metrics, NextHeartbeat: c.Heartbeat})
	if err == nil {
		cp.releases, err = newReleases(c, cp.core, cp.metrics)
	}
	if err != nil {
		return nil, errors.Join(err, cp.store.Close())
	}
	cp.metrics.Registry.MustRegister(cp.core)
	return cp, nil
}

func openStore(ctx context.Context, db string) (store.Store, error) {
	file, err := databaseFile(db)
	if err != nil {
		return nil, err
	}
	return store.OpenSqlite(ctx, file)
}

// Close closes a control plane that was not run.
func (cp *ControlPlane) Close() error { return cp.store.Close() }

// Run serves until the context ends: agents and operators on the listener, with
// TLS; health and metrics without it on local, which may be nil. It closes both.
func (cp *ControlPlane) Run(ctx context.Context, listener, local net.Listener) (err error) {
	defer func() { err = errors.Join(err, cp.store.Close()) }()

	// The core outlives the requests, which wait for it.
	working, stopCore := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		cp.core.Run(working)
	}()
	defer func() {
		stopCore()
		<-stopped
	}()

	group, serving := errgroup.WithContext(ctx)
	handlers := api.New(api.Options{
		Core: cp.core, Log: cp.config.Log, Metrics: cp.metrics, Version: cp.config.Version,
		ClientCAs: cp.clients, OrgRoot: cp.releases.orgRoot, Issuer: cp.issuer, Draining: serving,
	})
	group.Go(func() error {
		cp.releases.run(serving)
		return nil
	})
	group.Go(func() error { return cp.serveTLS(serving, handlers, listener) })
	if local != nil {
		group.Go(func() error { return cp.serveLocal(serving, handlers, local) })
	}
	return group.Wait()
}

func (cp *ControlPlane) serveTLS(ctx context.Context, a *api.API, l net.Listener) error {
	server := cp.httpServer(a.Handler())
	server.ConnContext = a.ConnContext
	server.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Verified per route: enrolment has none, renewal may have an expired one.
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: cp.server.get,
	}
	// A peer that vanished without a word is found by a ping.
	server.HTTP2 = &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: 15 * time.Second}
	return run(ctx, server, func() error { return server.ServeTLS(l, "", "") })
}

func (cp *ControlPlane) serveLocal(ctx context.Context, a *api.API, l net.Listener) error {
	server := cp.httpServer(a.Local())
	return run(ctx, server, func() error { return server.Serve(l) })
}

func (cp *ControlPlane) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute, // longer than a parked poll and a heartbeat are apart
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(cp.config.Log.Handler(), slog.LevelDebug), // strangers' failed handshakes
	}
}

// run serves until the context ends, then lets requests finish.
func run(ctx context.Context, server *http.Server, serve func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := server.Shutdown(stopping)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests did not end in %s: %w", stopTimeout, err), server.Close())
	}
	<-ended // http.ErrServerClosed
	return err
}

// newIssuer is the issuer of agents' certificates; nil when no authority is
// configured.
func newIssuer(c Config) (*issuer.Issuer, error) {
	if c.CACert == "" {
		return nil, nil
	}
	ca, err := issuer.Load(c.CACert, c.CAKey)
	if err != nil {
		return nil, err
	}
	log := c.IssuanceLog
	if log == "" {
		file, err := databaseFile(c.DB)
		if err != nil {
			return nil, err
		}
		log = filepath.Join(filepath.Dir(file), "issuances.jsonl")
	}
	return issuer.New(issuer.Config{CA: ca, AuditLog: log, Suffix: c.AgentCertSuffix, Validity: c.AgentCertValidity}), nil
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--client-ca: %w", err)
	}
	certs, err := identity.ParseCertificates(pem)
	if err != nil {
		return nil, fmt.Errorf("--client-ca %s: %w", file, err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// Check opens everything that the configuration names, reads the state, and asks
// the database whether it is sound.
func Check(ctx context.Context, c Config) error {
	cp, err := New(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(cp.store.Check(ctx), cp.Close())
}

// Rebuild makes the derived part of a database anew from its log.
func Rebuild(ctx context.Context, db string) error {
	s, err := openStore(ctx, db)
	if err != nil {
		return err
	}
	return errors.Join(core.Rebuild(ctx, s), s.Close())
}

// Schema is the version of a database's schema.
func Schema(ctx context.Context, db string) (int64, error) {
	s, err := openStore(ctx, db)
	if err != nil {
		return 0, err
	}
	v, err := s.Schema(ctx)
	return v, errors.Join(err, s.Close())
}
