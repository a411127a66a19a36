package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/durable"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// certificateCheck is how often the certificate on disk is looked at.
const certificateCheck = time.Hour

// certify keeps the host's certificate usable: it enrols without one and after a
// revocation, renews it in time, and renews an expired one, for which the key is
// the authority.
func (a *Agent) certify(ctx context.Context) error {
	var backoff uplink.Backoff
	revoked := false // so the control plane said since the last attempt
	for ctx.Err() == nil {
		cert, err := a.usableCertificate()
		now := time.Now()
		if err == nil && revoked {
			err = fmt.Errorf("the control plane says that the certificate %s was revoked", a.cfg.ClientCertFile)
		}
		revoked = false
		if err == nil && now.Before(cert.NotAfter) {
			a.enrolled.open()
			if wait := time.Until(a.renewAt(cert)); wait > 0 {
				backoff.Reset()
				revoked = a.untilRevoked(ctx, min(wait, certificateCheck))
				continue
			}
		}
		if err == nil {
			err = a.renew(ctx)
			var refused *wire.Error
			if errors.As(err, &refused) && !refused.Temporary() && (now.After(cert.NotAfter) || refused.Slug == wire.SlugRevoked) {
				err = a.enroll(ctx, fmt.Errorf("the certificate ends at %s and was not renewed: %w", cert.NotAfter.Format(time.RFC3339), err))
			}
		} else {
			err = a.enroll(ctx, err)
		}
		if err == nil {
			a.log.Info("certificate stored", "file", a.cfg.ClientCertFile)
			select {
			case <-a.revoked: // that was the one before
			default:
			}
			a.uplinkWell("certificate")
			continue
		}
		a.uplinkTrouble("certificate", err)
		wait := backoff.Next(err)
		if !retriedSoon(err) {
			wait = a.cfg.PollInterval // a person has to do something first
		}
		a.pause(ctx, wait)
	}
	return nil
}

// untilRevoked waits, and tells whether the control plane said meanwhile that the
// certificate was revoked.
func (a *Agent) untilRevoked(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-a.revoked:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// retriedSoon tells whether an attempt failed for a reason that goes by itself.
func retriedSoon(err error) bool {
	var answer *wire.Error
	var needed *needsPerson
	return !errors.As(err, &needed) && (!errors.As(err, &answer) || answer.Temporary())
}

// needsPerson is a failure that goes only when somebody does something.
type needsPerson struct{ error }

func (e *needsPerson) Unwrap() error { return e.error }

// usableCertificate reads the certificate, expired or not, if it is this host's.
func (a *Agent) usableCertificate() (*x509.Certificate, error) {
	cert, err := a.uplink.Certificate()
	if err != nil {
		return nil, err
	}
	key, err := identity.LoadHostKey(a.cfg.ClientKeyFile)
	if err != nil {
		return nil, err
	}
	if !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the certificate %s is for another key than %s", a.cfg.ClientCertFile, a.cfg.ClientKeyFile)
	}
	if role, ok := identity.RoleOf(cert); !ok || role.Kind != identity.Agent || role.Name != a.cfg.MachineID {
		return nil, fmt.Errorf("the certificate %s is not that of the agent of %s", a.cfg.ClientCertFile, a.cfg.MachineID)
	}
	return cert, nil
}

// renewAt is when to renew a certificate, spread over a tenth of what is left
// then, so that hosts that were enrolled together do not come together.
func (a *Agent) renewAt(cert *x509.Certificate) time.Time {
	due := identity.RenewalDue(cert, a.cfg.RenewalThreshold)
	spread := cert.NotAfter.Sub(due) / 10
	return due.Add(time.Duration(a.spread * float64(spread)))
}

// newSpread is where in such a span this process acts.
func newSpread() float64 { return rand.Float64() }

func (a *Agent) renew(ctx context.Context) error {
	csr, err := a.csr()
	if err != nil {
		return err
	}
	answer, err := a.uplink.Renew(ctx, wire.RenewRequest{CSRPem: string(csr)})
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	return a.storeCertificate(ctx, answer)
}

// enroll gets a first certificate by the bootstrap token; why says what is wrong
// with the one that is there, if any.
func (a *Agent) enroll(ctx context.Context, why error) error {
	if a.cfg.BootstrapTokenFile == "" {
		return &needsPerson{fmt.Errorf("no usable certificate, and no bootstrap token to get one: set --bootstrap-token-file: %w", why)}
	}
	token, err := os.ReadFile(a.cfg.BootstrapTokenFile)
	if err == nil && !json.Valid(token) {
		err = fmt.Errorf("%s is not JSON", a.cfg.BootstrapTokenFile)
	}
	if err != nil {
		return &needsPerson{fmt.Errorf("no usable certificate (%w), and the bootstrap token cannot be read: %w", why, err)}
	}
	err = a.enrollWith(ctx, token)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("enrol: %w", err)
	var refused *wire.Error
	var needed *needsPerson
	switch {
	case errors.Is(err, errUntrusted):
		a.reportBootstrap(ctx, token, wire.BootstrapTrustError, err)
	case errors.As(err, &needed), errors.As(err, &refused) && !refused.Temporary():
		a.reportBootstrap(ctx, token, wire.BootstrapEnrollmentFailed, err)
	}
	return err
}

func (a *Agent) enrollWith(ctx context.Context, token []byte) error {
	csr, err := a.csr()
	if err != nil {
		return err
	}
	answer, err := a.uplink.Enroll(ctx, wire.EnrollRequest{Token: token, CSRPem: string(csr)})
	if err != nil {
		return err
	}
	return a.storeCertificate(ctx, answer)
}

// reportBootstrap tells the operator why this host cannot enrol. It is one try:
// the next failure reports again.
func (a *Agent) reportBootstrap(ctx context.Context, token []byte, kind wire.BootstrapEventKind, why error) {
	err := a.uplink.Report(ctx, wire.BootstrapReport{
		Token:        token,
		AgentVersion: a.cfg.Version,
		OccurredAt:   time.Now().UTC().Truncate(time.Second),
		Event:        wire.BootstrapEvent{Kind: kind, Reason: why.Error()},
	})
	if err != nil {
		a.log.Warn("the failed enrolment could not be reported", "err", err)
	}
}

func (a *Agent) csr() ([]byte, error) {
	key, err := identity.LoadHostKey(a.cfg.ClientKeyFile)
	if err != nil {
		return nil, &needsPerson{err}
	}
	return identity.NewCSR(a.cfg.MachineID, key)
}

// errUntrusted: a certificate was issued, and this host does not believe in it.
var errUntrusted = errors.New("the control plane's certificate is not used")

// storeCertificate checks a certificate and stores it. The client uses it from
// the next request on.
func (a *Agent) storeCertificate(ctx context.Context, c wire.CertificateResponse) error {
	roots, err := a.roots(ctx)
	if err != nil {
		return err
	}
	key, err := identity.LoadHostKey(a.cfg.ClientKeyFile)
	if err != nil {
		return err
	}
	crashpoint.Here("agent/certificate-answered", "the control plane has issued a certificate; the host has not stored it")
	_, err = identity.CheckCertificate([]byte(c.CertPem), identity.Expected{
		MachineID:   a.cfg.MachineID,
		Key:         key.Public().(ed25519.PublicKey),
		IssuanceCAs: roots.IssuanceCAPems,
		Now:         time.Now(),
	})
	if err != nil {
		return &needsPerson{fmt.Errorf("%w: %w", errUntrusted, err)}
	}
	if err := os.MkdirAll(filepath.Dir(a.cfg.ClientCertFile), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(a.cfg.ClientCertFile, []byte(c.CertPem), 0o600); err != nil {
		return err
	}
	crashpoint.Here("agent/certificate-stored", "the host has stored its certificate, and has not used it")
	return nil
}
