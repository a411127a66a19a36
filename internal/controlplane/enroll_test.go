package controlplane_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

func claimsFor(h *fleettest.Host) identity.Claims {
	now := time.Now()
	return identity.Claims{
		Hostname: h.Name, ExpectedPubkeyFingerprint: identity.Fingerprint(h.Key.Public().(ed25519.PublicKey)),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), Nonce: identity.NewNonce(),
	}
}

// TestEnrolmentRefusals goes through the checks of an enrolment in their order.
func TestEnrolmentRefusals(t *testing.T) {
	f := fleettest.New(t, 2)
	h, other := f.Hosts[0], f.Hosts[1]
	good := f.Token(h)
	notAllowed := func() []byte { // signed, and in no list
		stranger := fleettest.New(t, 1)
		return stranger.Token(stranger.Hosts[0])
	}
	expired := claimsFor(h)
	expired.IssuedAt, expired.ExpiresAt = expired.IssuedAt.Add(-2*time.Hour), expired.IssuedAt.Add(-time.Hour)
	early := claimsFor(h)
	early.IssuedAt, early.ExpiresAt = early.IssuedAt.Add(time.Hour), early.IssuedAt.Add(2*time.Hour)
	forOther := claimsFor(h)
	forOther.ExpectedPubkeyFingerprint = identity.Fingerprint(other.Key.Public().(ed25519.PublicKey))
	undeclared := claimsFor(h)
	undeclared.Hostname = "host-9"
	expiredToken, earlyToken, forOtherToken, undeclaredToken := f.Mint(expired), f.Mint(early), f.Mint(forOther), f.Mint(undeclared)
	revokedToken := f.Mint(claimsFor(other))
	f.Revoke(fleet.Revocation{Hostname: other.Name, NotBefore: time.Now().Add(time.Hour), Reason: "stolen"})
	f.Publish("aa", newSystem)
	unlisted := f.Token(h) // after the list was published

	w := serve(t, f)
	c := w.nobody()
	w.eventually("the list is known", func() bool {
		code, _ := c.do("POST", wire.PathEnroll, w.enrolment(h, good))
		return code == http.StatusOK
	})
	try := func(token []byte, by *fleettest.Host, code int, slug wire.Slug) {
		t.Helper()
		// Each with a fresh limit: this host tries more often than one should.
		c.want("POST", wire.PathEnroll, w.enrolment(by, token), code, slug)
	}
	try(notAllowed(), h, 401, wire.SlugBadToken)
	try([]byte(`{"version":1}`), h, 401, wire.SlugBadToken)
	try(expiredToken, h, 403, wire.SlugTokenExpired)
	try(earlyToken, h, 403, wire.SlugTokenNotYet)
	try(unlisted, h, 403, wire.SlugNonceNotAllowed)
	c.want("POST", wire.PathEnroll, wire.EnrollRequest{Token: good, CSRPem: "none"}, 400, wire.SlugBadCSR)
	try(good, other, 403, wire.SlugNameMismatch)
	try(forOtherToken, h, 403, wire.SlugKeyMismatch)
	nine := &fleettest.Host{Name: "host-9", Key: h.Key}
	try(undeclaredToken, nine, 403, wire.SlugHostNotDeclared)
	try(revokedToken, other, 403, wire.SlugRevoked)
}

// C8: the same token and key give the same certificate, also after a restart.
func TestEnrolmentIsIdempotent(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	token := f.Token(h)
	f.Publish("aa", newSystem)
	w := serve(t, f)
	var first, again wire.CertificateResponse
	w.eventually("the list is known", func() bool {
		code, body := w.nobody().do("POST", wire.PathEnroll, w.enrolment(h, token))
		return code == http.StatusOK && json.Unmarshal(body, &first) == nil
	})
	w.stop()
	w.start()
	w.ok(json.Unmarshal(w.nobody().want("POST", wire.PathEnroll, w.enrolment(h, token), 200, ""), &again))
	if first != again {
		t.Error("the second certificate is another one")
	}
	// It is a certificate that an agent takes.
	ca, err := os.ReadFile(f.CACert())
	w.ok(err)
	_, err = identity.CheckCertificate([]byte(first.CertPem), identity.Expected{
		MachineID: h.Name, Key: h.Key.Public().(ed25519.PublicKey), IssuanceCAs: []string{string(ca)}, Now: time.Now(),
	})
	w.ok(err)
	if log, err := os.ReadFile(w.logFile()); err != nil || len(log) == 0 {
		t.Errorf("the log of certificates: %q, %v", log, err)
	}
}

func TestBootstrapReportDoesNotUseTheToken(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	token := f.Token(h)
	f.Publish("aa", newSystem)
	w := serve(t, f)
	report := wire.BootstrapReport{Token: token, AgentVersion: "1", OccurredAt: time.Now(), Event: wire.BootstrapEvent{Kind: wire.BootstrapTrustError, Reason: "no"}}
	w.nobody().want("POST", wire.PathBootstrapReport, report, 204, "")
	report.Token = []byte(`{}`)
	w.nobody().want("POST", wire.PathBootstrapReport, report, 401, wire.SlugBadToken)
	w.eventually("the token still works", func() bool {
		code, _ := w.nobody().do("POST", wire.PathEnroll, w.enrolment(h, token))
		return code == http.StatusOK
	})
}

// C1: the name of a renewed certificate is that of the presented one.
func TestRenewal(t *testing.T) {
	f := fleettest.New(t, 2)
	w := serve(t, f)
	h, other := f.Hosts[0], f.Hosts[1]
	agent := w.enrolled(h)
	request := func(h *fleettest.Host) wire.RenewRequest {
		return wire.RenewRequest{CSRPem: w.enrolment(h, nil).CSRPem}
	}
	var got wire.CertificateResponse
	w.ok(json.Unmarshal(agent.want("POST", wire.PathRenew, request(h), 200, ""), &got))
	renewed := w.agent(h, got.CertPem)
	if who := get[wire.Whoami](renewed, wire.PathWhoami); who.Host != h.Name {
		t.Errorf("renewed is %+v", who)
	}
	agent.want("POST", wire.PathRenew, request(other), 403, wire.SlugNameMismatch)
	_, stolen, err := ed25519.GenerateKey(rand.Reader)
	w.ok(err)
	agent.want("POST", wire.PathRenew, request(&fleettest.Host{Name: h.Name, Key: stolen}), 403, wire.SlugKeyMismatch)
	agent.want("POST", wire.PathRenew, wire.RenewRequest{CSRPem: "none"}, 400, wire.SlugBadCSR)
}

// C27: an expired certificate renews, because the declared key is the authority,
// and does nothing else. C19: a revoked one does not.
func TestExpiredAndRevokedCertificates(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	h := f.Hosts[0]
	agent := w.enrolled(h)
	expired := w.client(w.certificate(h, time.Now().Add(-2*time.Hour), time.Hour))
	expired.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name}, 403, wire.SlugExpired)
	request := wire.RenewRequest{CSRPem: w.enrolment(h, nil).CSRPem}
	expired.want("POST", wire.PathRenew, request, 200, "")

	agent.want("GET", wire.PathWhoami, nil, 200, "")
	f.Revoke(fleet.Revocation{Hostname: h.Name, NotBefore: time.Now().Add(time.Second)})
	f.Publish("bb", newSystem)
	w.eventually("it is revoked", func() bool { code, _ := agent.do("GET", wire.PathWhoami, nil); return code == 403 })
	agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name}, 403, wire.SlugRevoked)
	expired.want("POST", wire.PathRenew, request, 403, wire.SlugRevoked)
}

// certificate is one that the fleet's authority issued at some time.
func (w *world) certificate(h *fleettest.Host, at time.Time, validity time.Duration) *tls.Certificate {
	w.t.Helper()
	certPEM, err := os.ReadFile(w.fleet.CACert())
	w.ok(err)
	keyPEM, err := os.ReadFile(w.fleet.CAKey())
	w.ok(err)
	signer, err := identity.ParseKey(keyPEM)
	w.ok(err)
	ca, err := identity.LoadCA(certPEM, signer)
	w.ok(err)
	template, err := identity.AgentTemplate(h.Name, "", at, validity)
	w.ok(err)
	cert, err := ca.Issue(template, h.Key.Public())
	w.ok(err)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: h.Key}
}
