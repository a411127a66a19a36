package identity_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/identity"
)

// C21: clocks that are a minute apart are not noticed, whichever is ahead; an
// hour is, and the error says what both clocks show.
func TestClocksThatAreApart(t *testing.T) {
	key := hostKey(t)
	ca := newCA(t, ten)
	cert := issueAgent(t, ca, "web-01", "", publicOf(key), ten)
	template, err := identity.ServerTemplate([]string{"cp"}, ten, day)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Issue(template, ca.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	claims := identity.Claims{
		Hostname: "web-01", ExpectedPubkeyFingerprint: identity.Fingerprint(key.Public().(ed25519.PublicKey)),
		IssuedAt: ten, ExpiresAt: ten.Add(30 * time.Minute), Nonce: identity.NewNonce(),
	}
	minted, err := identity.MintToken(claims, orgSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(minted)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	slot := orgRoot(t)

	for what, check := range map[string]func(now time.Time) error{
		"the host looks at its certificate": func(now time.Time) error {
			_, err := identity.CheckCertificate(identity.EncodeCertificate(cert), identity.Expected{
				MachineID: "web-01", Key: publicOf(key), IssuanceCAs: []string{string(identity.EncodeCertificate(ca.Cert))}, Now: now,
			})
			return err
		},
		"the control plane looks at the host's certificate": func(now time.Time) error {
			_, err := identity.VerifyClient([]*x509.Certificate{cert}, roots, now)
			return err
		},
		"the control plane looks at a token": func(now time.Time) error {
			_, err := identity.VerifyToken(token, slot, now)
			return err
		},
		"the host looks at the control plane's certificate": func(now time.Time) error {
			_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "cp", CurrentTime: now})
			return err
		},
	} {
		for _, apart := range []time.Duration{-time.Minute, 0, time.Minute} {
			if err := check(ten.Add(apart)); err != nil {
				t.Errorf("%s, by a clock that is ahead by %s: %v", what, apart, err)
			}
		}
		now := ten.Add(-time.Hour)
		err := check(now)
		if err == nil {
			t.Errorf("%s, by a clock that is an hour behind, and takes it", what)
			continue
		}
		for _, moment := range []time.Time{now, ten} {
			// Go's own message, of the server's certificate, names the exact beginning.
			if !strings.Contains(err.Error(), moment.Format(time.RFC3339)) && !strings.Contains(err.Error(), moment.Add(-time.Minute).Format(time.RFC3339)) {
				t.Errorf("%s: the error does not tell %s: %v", what, moment.Format(time.RFC3339), err)
			}
		}
	}
	// Ahead by an hour: the token of half an hour has ended, certificates have not.
	if _, err := identity.VerifyToken(token, slot, ten.Add(time.Hour)); !errors.Is(err, identity.ErrTokenExpired) {
		t.Errorf("a token of half an hour: %v", err)
	}
}
