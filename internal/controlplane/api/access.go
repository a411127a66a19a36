package api

import (
	"crypto/x509"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// access is who may use a route.
type access int

const (
	anyone    access = iota // no certificate is looked at
	holders                 // any good certificate, also one without a role
	members                 // agents and operators
	agents                  // an agent; what it asks for is its own host's
	operators               // an operator
	renewers                // an agent, also one whose certificate has expired
)

// caller is who asks. Its zero value is nobody.
type caller struct {
	cert        *x509.Certificate
	role        identity.Role // Kind is "" when the certificate has none
	fingerprint string        // of its key
	serial      string
}

// host is whose certificate an agent has; "" for others.
func (c caller) host() string {
	if c.role.Kind != identity.Agent {
		return ""
	}
	return c.role.Name
}

// peer is what was found out about a connection's certificate: its chain is
// verified once, its end and revocations are looked at with every request.
type peer struct {
	mu        sync.Mutex
	checked   bool
	who       caller
	err       error
	presented bool // the core knows that an agent showed it
}

type peerKey struct{}

// identify verifies the certificate of the connection.
func (a *API) identify(r *http.Request) (caller, *peer, error) {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	if p == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller{}, nil, wire.Errorf(wire.SlugNoCertificate, "this needs a client certificate")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.checked {
		p.who, p.err = a.verify(r.TLS.PeerCertificates)
		// One that is not valid yet will be.
		var refused *wire.Error
		p.checked = !errors.As(p.err, &refused) || refused.Slug != wire.SlugCertNotYet
	}
	return p.who, p, p.err
}

func (a *API) verify(chain []*x509.Certificate) (caller, error) {
	// An expired certificate is good for a renewal; admit looks at the dates.
	switch _, err := identity.VerifyClient(chain, a.ClientCAs, time.Now()); {
	case errors.Is(err, identity.ErrCertNotYet):
		return caller{}, wire.Errorf(wire.SlugCertNotYet, "%v", err)
	case err != nil:
		return caller{}, wire.Errorf(wire.SlugForbidden, "%v", err)
	}
	leaf := chain[0]
	c := caller{cert: leaf, serial: leaf.SerialNumber.Text(16)}
	c.role, _ = identity.RoleOf(leaf)
	var err error
	if c.fingerprint, err = identity.FingerprintOf(leaf.PublicKey); err != nil {
		return caller{}, wire.Errorf(wire.SlugForbidden, "%v", err)
	}
	return c, nil
}

// admit tells who asks, or why they may not.
func (a *API) admit(r *http.Request, who access) (caller, error) {
	if who == anyone {
		return caller{}, nil
	}
	c, p, err := a.identify(r)
	if err != nil {
		return caller{}, err
	}
	if now := time.Now(); now.After(c.cert.NotAfter) && who != renewers {
		return caller{}, wire.Errorf(wire.SlugExpired, "the certificate expired at %s, it is %s here",
			c.cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if why := a.Core.Documents().Revoked(c.host(), c.fingerprint, c.cert.NotBefore); why != "" {
		a.Metrics.SecurityAlerts.WithLabelValues("revoked").Inc()
		return caller{}, wire.Errorf(wire.SlugRevoked, "%s", why)
	}
	if !who.allows(c.role.Kind) {
		return caller{}, wire.Errorf(wire.SlugForbidden, "a certificate of %s may not do this", describe(c.role))
	}
	if c.role.Kind == identity.Agent {
		if err := a.present(r, c, p); err != nil {
			return caller{}, err
		}
	}
	return c, nil
}

func (w access) allows(kind identity.RoleKind) bool {
	switch w {
	case holders:
		return true
	case members:
		return kind == identity.Agent || kind == identity.Operator
	case agents, renewers:
		return kind == identity.Agent
	case operators:
		return kind == identity.Operator
	}
	return false
}

func describe(r identity.Role) string {
	if r.Kind == "" {
		return "no role"
	}
	return string(r.Kind) + " " + r.Name
}

// present has the core look at an agent's certificate before anything is done
// for it, once a connection.
func (a *API) present(r *http.Request, c caller, p *peer) error {
	p.mu.Lock()
	known := p.presented
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := a.Core.Presented(r.Context(), c.host(), c.serial); err != nil {
		return err
	}
	p.mu.Lock()
	p.presented = true
	p.mu.Unlock()
	return nil
}

// checkProtocol looks at the version that the caller speaks.
func checkProtocol(r *http.Request, required bool) error {
	values := r.Header.Values(wire.HeaderProtocol)
	if len(values) == 0 && !required {
		return nil
	}
	if len(values) != 1 {
		return wire.Errorf(wire.SlugProtocolMissing, "the header %s is required once; this server speaks %d", wire.HeaderProtocol, wire.ProtocolVersion)
	}
	version, err := strconv.Atoi(values[0])
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && version != wire.ProtocolVersion:
		return wire.Errorf(wire.SlugProtocol, "protocol %.20s is not spoken here, %d is", values[0], wire.ProtocolVersion)
	case err != nil:
		return wire.Errorf(wire.SlugProtocolMissing, "the header %s is no number: %.20q", wire.HeaderProtocol, values[0])
	}
	return nil
}
