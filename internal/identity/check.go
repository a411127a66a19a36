package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// certSkew is how far ahead an issuer's clock may be of a host's that is given a
// certificate. A host with a wrong clock is better off with one.
const certSkew = 5 * time.Minute

// clientSkew is how far the clocks of a client, a server and who issued their
// certificates may be apart. What ends, ends on time.
const clientSkew = time.Minute

// Why a certificate is not the one that was asked for.
var (
	ErrCertMalformed = errors.New("not a certificate")
	ErrCertKey       = errors.New("certificate is for another key")
	ErrCertName      = errors.New("certificate is for another machine")
	ErrCertRole      = errors.New("certificate does not have the role of an agent")
	ErrCertDates     = errors.New("certificate is not valid now")
	ErrCertNotYet    = errors.New("certificate is not valid yet")
	ErrCertChain     = errors.New("certificate is not issued by a pinned authority")
)

// Expected is the certificate that a host asked for.
type Expected struct {
	MachineID string
	Key       ed25519.PublicKey
	// IssuanceCAs are the pinned authorities as PEM, trust.json's issuanceCaPems.
	// Without one nothing is accepted.
	IssuanceCAs []string
	Now         time.Time
}

// CheckCertificate tells whether certPEM, a certificate followed by its
// intermediates, is what was expected: key, machine id, role, dates, and a chain
// to a pinned authority. An agent asks before it stores or uses one.
func CheckCertificate(certPEM []byte, want Expected) (*x509.Certificate, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertMalformed, err)
	}
	cert := certs[0]
	if !want.Key.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%w than the host's", ErrCertKey)
	}
	role, ok := RoleOf(cert)
	if !ok || role.Kind != Agent {
		return nil, ErrCertRole
	}
	if name := cert.Subject.CommonName; role.Name != want.MachineID || name != want.MachineID && !strings.HasPrefix(name, agentPrefix(want.MachineID)) {
		return nil, fmt.Errorf("%w: it is for %s (common name %s), this is %s", ErrCertName, role.Name, name, want.MachineID)
	}
	if want.Now.Before(cert.NotBefore.Add(-certSkew)) || want.Now.After(cert.NotAfter) {
		return nil, fmt.Errorf("%w: from %s to %s, it is %s", ErrCertDates, stamp(cert.NotBefore), stamp(cert.NotAfter), stamp(want.Now))
	}
	roots, err := pinned(want.IssuanceCAs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertChain, err)
	}
	at := want.Now
	if at.Before(cert.NotBefore) {
		at = cert.NotBefore // within the skew allowed above
	}
	if err := verifyChain(certs, roots, at); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertChain, err)
	}
	return cert, nil
}

func pinned(pems []string) (*x509.CertPool, error) {
	if len(pems) == 0 {
		return nil, errors.New("trust.json pins none in issuanceCaPems")
	}
	pool := x509.NewCertPool()
	for i, p := range pems {
		certs, err := ParseCertificates([]byte(p))
		if err != nil {
			return nil, fmt.Errorf("issuanceCaPems[%d]: %w", i, err)
		}
		for _, cert := range certs {
			pool.AddCert(cert)
		}
	}
	return pool, nil
}

// VerifyClient checks the chain that a TLS client presented, leaf first. It
// reports an end certificate that is good but for having expired as such, so
// that a renewal can be granted to it and nothing else. One that is good but
// begins more than a minute from now is ErrCertNotYet.
func VerifyClient(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (expired bool, err error) {
	if len(chain) == 0 {
		return false, fmt.Errorf("%w: none was presented", ErrCertMalformed)
	}
	leaf := chain[0]
	at := now
	switch {
	case now.After(leaf.NotAfter):
		expired, at = true, leaf.NotAfter
	case now.Before(leaf.NotBefore):
		at = leaf.NotBefore
	}
	if err := verifyChain(chain, roots, at); err != nil {
		return false, fmt.Errorf("%w: %w", ErrCertChain, err)
	}
	if leaf.NotBefore.Sub(now) > clientSkew {
		return false, fmt.Errorf("%w: it begins at %s, it is %s here: one of the two clocks is wrong", ErrCertNotYet, stamp(leaf.NotBefore), stamp(now))
	}
	return expired, nil
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// NeedsRenewal tells whether at most the fraction threshold (0 to 1) of the
// certificate's validity is left.
func NeedsRenewal(cert *x509.Certificate, threshold float64, now time.Time) bool {
	return !now.Before(RenewalDue(cert, threshold))
}

// RenewalDue is when NeedsRenewal becomes true.
func RenewalDue(cert *x509.Certificate, threshold float64) time.Time {
	validity := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotAfter.Add(-time.Duration(threshold * float64(validity)))
}
