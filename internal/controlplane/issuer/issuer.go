// Package issuer is the control plane's certificate authority: it signs
// certificates and writes down each one.
//
// It promises that no certificate leaves it without a line in the audit log that
// is on disk, and that a certificate says no more than the template of its role.
//
// It needs its caller to have decided that the certificate may be issued: who
// asks, whose key it is, and what is revoked are not its business. It needs the
// folder of the log to be there.
//
// It never reads a key that others may read, never keeps a key of anybody else,
// and never issues an authority.
package issuer

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"nixfleet/internal/identity"
)

// Config is what an issuer is made of.
type Config struct {
	CA       identity.CA   // its Signer may be a key in memory, or sign elsewhere
	AuditLog string        // a file of JSON lines, made when it is not there
	Suffix   string        // of the names of agents; may be empty
	Validity time.Duration // of the certificates of agents
}

// Issuer issues certificates. It serves any number of goroutines.
type Issuer struct {
	config Config
	log    log
}

// New is an issuer.
func New(c Config) *Issuer { return &Issuer{config: c, log: log{file: c.AuditLog}} }

// Agent issues a host's certificate. Requester is what let the host have it, for
// the log.
func (i *Issuer) Agent(host string, key crypto.PublicKey, now time.Time, requester string) (*x509.Certificate, error) {
	template, err := identity.AgentTemplate(host, i.config.Suffix, now, i.config.Validity)
	if err != nil {
		return nil, err
	}
	return i.issue(template, key, entry{Time: now, Role: roleAgent, Name: host, Requester: requester})
}

// Operator issues the certificate of a person or of CI.
func (i *Issuer) Operator(name string, key crypto.PublicKey, now time.Time, validity time.Duration, requester string) (*x509.Certificate, error) {
	template, err := identity.OperatorTemplate(name, now, validity)
	if err != nil {
		return nil, err
	}
	return i.issue(template, key, entry{Time: now, Role: roleOperator, Name: name, Requester: requester})
}

// Server issues the certificate of a control plane that is reached under the
// given DNS names and IP addresses.
func (i *Issuer) Server(names []string, key crypto.PublicKey, now time.Time, validity time.Duration, requester string) (*x509.Certificate, error) {
	template, err := identity.ServerTemplate(names, now, validity)
	if err != nil {
		return nil, err
	}
	return i.issue(template, key, entry{Time: now, Role: roleServer, Name: names[0], Requester: requester})
}

func (i *Issuer) issue(template *x509.Certificate, key crypto.PublicKey, e entry) (*x509.Certificate, error) {
	fingerprint, err := identity.FingerprintOf(key)
	if err != nil {
		return nil, fmt.Errorf("issue to %s %s: %w", e.Role, e.Name, err)
	}
	cert, err := i.config.CA.Issue(template, key)
	if err != nil {
		return nil, fmt.Errorf("issue to %s %s: %w", e.Role, e.Name, err)
	}
	e.Serial, e.KeyFingerprint, e.NotAfter = cert.SerialNumber.Text(16), fingerprint, cert.NotAfter
	if err := i.log.append(e); err != nil {
		return nil, err
	}
	return cert, nil
}
