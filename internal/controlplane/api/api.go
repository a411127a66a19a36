// Package api is the control plane's HTTP side: routes, roles, limits, and the
// translation between requests and the core.
//
// It promises that every route checks, in this order, the protocol's version,
// who asks, and whether that role may; that a body is never read beyond its
// limit; that every error has the one error body; and that nothing is answered
// as stored before the core has committed it.
//
// It needs TLS connections that asked for a client certificate without verifying
// it: verification is per route, because enrolment has no certificate and
// renewal may have an expired one.
//
// It never decides about a rollout, and keeps no state but limits and what it
// found out about a connection's certificate.
package api

import (
	"context"
	"crypto/x509"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/issuer"
	"nixfleet/internal/controlplane/metrics"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// Options are what an API is made of. All but Issuer are required.
type Options struct {
	Core    *core.Core
	Log     *slog.Logger
	Metrics *metrics.Metrics
	Version string

	// ClientCAs sign the certificates of agents and operators.
	ClientCAs *x509.CertPool
	// OrgRoot is the key slot that bootstrap tokens are signed by; false when
	// none is pinned, and then nobody can enrol.
	OrgRoot func() (trust.Slot, bool)
	// Issuer makes certificates. Nil when there is no authority here.
	Issuer *issuer.Issuer

	// Draining is done when the control plane is about to stop: parked polls end.
	Draining context.Context
}

// API serves requests.
type API struct {
	Options
	enrolByAddress, enrolByHost, reportByHost *limiter
	parked                                    atomic.Int64 // polls
}

// New makes the handler of all routes.
func New(o Options) *API {
	return &API{
		Options: o,
		// A site of many machines behind one address may enrol together; one host
		// has no reason to try more than now and then.
		enrolByAddress: newLimiter(10, 100),
		enrolByHost:    newLimiter(0.2, 10),
		reportByHost:   newLimiter(0.2, 10),
	}
}

// Handler routes requests to the routes of the table.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	byPath := map[string]map[string]route{}
	for _, rt := range a.routes() {
		if byPath[rt.path] == nil {
			byPath[rt.path] = map[string]route{}
		}
		byPath[rt.path][rt.method] = rt
		if rt.method == http.MethodGet && rt.path != wire.PathDispatch { // whose order would be handed to nobody
			byPath[rt.path][http.MethodHead] = rt
		}
	}
	for path, methods := range byPath {
		mux.Handle(path, a.serve(path, methods))
	}
	mux.Handle("/", a.measured("other", notFound))
	return mux
}

func notFound(_ http.ResponseWriter, r *http.Request) error {
	return wire.Errorf(wire.SlugNotFound, "there is no %.200q", r.URL.Path)
}

// Local is what a listener that only this machine reaches serves, without asking
// who it is: health and metrics.
func (a *API) Local() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range a.routes() {
		switch rt.path {
		case wire.PathHealthz, wire.PathReadyz, wire.PathMetrics:
			mux.Handle(rt.method+" "+rt.path, a.measured(rt.path, func(w http.ResponseWriter, r *http.Request) error {
				return rt.handle(w, r, caller{})
			}))
		}
	}
	mux.Handle("/", a.measured("other", notFound))
	return mux
}

// ConnContext gives every connection a place for what is found out about it. It
// belongs into http.Server.
func (a *API) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, &peer{})
}

// bodyTimeout is how long a body may take to arrive.
const bodyTimeout = 30 * time.Second

// serve answers one path.
func (a *API) serve(path string, methods map[string]route) http.HandlerFunc {
	allowed := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	return a.measured(path, func(w http.ResponseWriter, r *http.Request) error {
		rt, ok := methods[r.Method]
		if !ok {
			w.Header().Set("Allow", allowed)
			return wire.Errorf(wire.SlugMethodNotAllowed, "%s does not take %s", path, r.Method)
		}
		if err := checkProtocol(r, rt.protocol); err != nil {
			return err
		}
		who, err := a.admit(r, rt.who)
		if err != nil {
			return err
		}
		if r.ContentLength > rt.limit && rt.limit > 0 {
			return &http.MaxBytesError{Limit: rt.limit}
		}
		if r.Body != nil && rt.limit > 0 {
			// Not every kind of connection has deadlines; then the server's own hold.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
			r.Body = http.MaxBytesReader(w, r.Body, rt.limit)
		}
		return rt.handle(w, r, who)
	})
}
