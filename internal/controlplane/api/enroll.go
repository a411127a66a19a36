package api

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// enroll gives a host its first certificate. The order of the checks is the
// protocol's: nothing is revealed to somebody without a signed token.
func (a *API) enroll(w http.ResponseWriter, r *http.Request, _ caller) error {
	if err := a.enrolByAddress.admit(addressOf(r)); err != nil {
		return err
	}
	var req wire.EnrollRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	now := time.Now()
	claims, err := a.token(req.Token, now, identity.VerifyToken)
	if err != nil {
		return err
	}
	if err := a.enrolByHost.admit("host " + claims.Hostname); err != nil {
		return err
	}
	docs := a.Core.Documents()
	allowed, ok := docs.Nonce(claims.Nonce)
	if !ok || allowed.Hostname != claims.Hostname || !now.Before(allowed.ExpiresAt) {
		return wire.Errorf(wire.SlugNonceNotAllowed, "this token is not in the signed list of allowed ones for %s, or its entry has expired", claims.Hostname)
	}
	csr, err := identity.ParseCSR([]byte(req.CSRPem))
	if err != nil {
		return wire.Errorf(wire.SlugBadCSR, "%v", err)
	}
	if csr.MachineID != claims.Hostname {
		return wire.Errorf(wire.SlugNameMismatch, "the request is for %s, the token for %s", csr.MachineID, claims.Hostname)
	}
	fingerprint := identity.Fingerprint(csr.Key)
	if fingerprint != claims.ExpectedPubkeyFingerprint {
		return wire.Errorf(wire.SlugKeyMismatch, "the request's key is %s, the token is for %s", fingerprint, claims.ExpectedPubkeyFingerprint)
	}
	if err := checkDeclared(docs, claims.Hostname, csr.Key); err != nil {
		return err
	}
	// A token's date has no more precision than a second: one that was minted in
	// the second in which its host was forgotten may be the new one.
	if why := docs.Revoked(claims.Hostname, fingerprint, claims.IssuedAt.Add(time.Second-1)); why != "" {
		return wire.Errorf(wire.SlugRevoked, "%s", why)
	}
	// Neither has a certificate's. One that began in that second would count as an
	// old one.
	if at := docs.Forgotten(claims.Hostname); now.Truncate(time.Second).Before(at) {
		return &wire.Error{Slug: wire.SlugUnavailable, Detail: "the host was forgotten this moment; ask again", RetryAfter: time.Second}
	}
	burned, err := a.Core.Burned(r.Context(), claims.Nonce, claims.Hostname, fingerprint)
	if err != nil {
		return err
	}
	if burned != nil {
		return answer(w, certificate(*burned))
	}
	issued, err := a.issue(r.Context(), claims.Hostname, csr.Key, claims.Nonce)
	if err != nil {
		return err
	}
	return answer(w, certificate(issued))
}

// token reads a bootstrap token and has verify say whether it is good.
func (a *API) token(raw json.RawMessage, now time.Time, verify func(identity.Token, trust.Slot, time.Time) (identity.Claims, error)) (identity.Claims, error) {
	slot, ok := a.OrgRoot()
	if !ok {
		return identity.Claims{}, wire.Errorf(wire.SlugBadToken, "no root key is pinned here that could have signed a token")
	}
	token, err := identity.ParseToken(raw)
	if err == nil {
		var claims identity.Claims
		if claims, err = verify(token, slot, now); err == nil {
			return claims, nil
		}
	}
	switch {
	case errors.Is(err, identity.ErrTokenExpired), errors.Is(err, identity.ErrTokenRejected):
		return identity.Claims{}, wire.Errorf(wire.SlugTokenExpired, "%v", err)
	case errors.Is(err, identity.ErrTokenNotYet):
		return identity.Claims{}, wire.Errorf(wire.SlugTokenNotYet, "%v", err)
	}
	a.Metrics.SecurityAlerts.WithLabelValues("token").Inc()
	return identity.Claims{}, wire.Errorf(wire.SlugBadToken, "%v", err)
}

// checkDeclared tells whether the newest fleet declares the host with the key.
func checkDeclared(docs *core.Documents, host string, key ed25519.PublicKey) error {
	if !docs.Declared(host) {
		return wire.Errorf(wire.SlugHostNotDeclared, "the fleet document has no host %s", host)
	}
	declared := docs.HostKey(host)
	if declared == nil {
		return wire.Errorf(wire.SlugHostNotDeclared, "the fleet document declares no key for %s: add its pubkey and release", host)
	}
	if !declared.Equal(key) {
		return wire.Errorf(wire.SlugKeyMismatch, "the fleet document declares another key for %s", host)
	}
	return nil
}

// issue makes a certificate and records it, with the nonce that it burns.
func (a *API) issue(ctx context.Context, host string, key ed25519.PublicKey, nonce string) (store.Issuance, error) {
	if a.Issuer == nil {
		return store.Issuance{}, wire.Errorf(wire.SlugUnavailable, "no certificate authority is configured here")
	}
	why := "renewal"
	if nonce != "" {
		why = "token"
	}
	cert, err := a.Issuer.Agent(host, key, time.Now(), why)
	if err != nil {
		return store.Issuance{}, err
	}
	crashpoint.Here("api/certificate-issued", "the authority has signed a certificate; nothing of it is stored")
	issued, err := a.Core.Issue(ctx, store.Issuance{
		Serial: cert.SerialNumber.Text(16), Role: string(identity.Agent), Name: host, KeyFingerprint: identity.Fingerprint(key),
		Nonce: nonce, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, CertPEM: string(identity.EncodeCertificate(cert)),
	})
	if err == nil {
		crashpoint.Here("api/certificate-recorded", "a certificate is stored; the host does not have it")
		a.Metrics.Issued.WithLabelValues(why).Inc()
	}
	return issued, err
}

func certificate(i store.Issuance) wire.CertificateResponse {
	return wire.CertificateResponse{CertPem: i.CertPEM, NotAfter: i.NotAfter}
}

// renew gives the next certificate of the presented one's name. The key that the
// fleet declares is the authority, so an expired certificate will do.
func (a *API) renew(w http.ResponseWriter, r *http.Request, who caller) error {
	var req wire.RenewRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	csr, err := identity.ParseCSR([]byte(req.CSRPem))
	if err != nil {
		return wire.Errorf(wire.SlugBadCSR, "%v", err)
	}
	if csr.MachineID != who.host() {
		return wire.Errorf(wire.SlugNameMismatch, "the request is for %s, the certificate of %s", csr.MachineID, who.host())
	}
	docs := a.Core.Documents()
	if err := checkDeclared(docs, who.host(), csr.Key); err != nil {
		return err
	}
	if why := docs.Revoked(who.host(), identity.Fingerprint(csr.Key), who.cert.NotBefore); why != "" {
		return wire.Errorf(wire.SlugRevoked, "%s", why)
	}
	issued, err := a.issue(r.Context(), who.host(), csr.Key, "")
	if err != nil {
		return err
	}
	return answer(w, certificate(issued))
}

// bootstrapReport takes why a host without a certificate cannot get one. The
// token shows whose report it is, and may have expired: that may be the reason.
func (a *API) bootstrapReport(w http.ResponseWriter, r *http.Request, _ caller) error {
	if err := a.enrolByAddress.admit(addressOf(r)); err != nil {
		return err
	}
	var report wire.BootstrapReport
	if err := readJSON(r, &report); err != nil {
		return err
	}
	now := time.Now()
	claims, err := a.token(report.Token, now, identity.AuthenticToken)
	if err != nil {
		return err
	}
	if err := a.reportByHost.admit("host " + claims.Hostname); err != nil {
		return err
	}
	switch report.Event.Kind {
	case wire.BootstrapTrustError, wire.BootstrapEnrollmentFailed:
	default:
		return wire.Errorf(wire.SlugBadRequest, "event.kind %.40q: %s and %s are known", report.Event.Kind, wire.BootstrapTrustError, wire.BootstrapEnrollmentFailed)
	}
	failure := wire.EnrolmentFailure{
		Kind: report.Event.Kind, Reason: clip(report.Event.Reason, 1024), AgentVersion: clip(report.AgentVersion, 64),
		OccurredAt: report.OccurredAt, At: now.UTC().Truncate(time.Millisecond),
	}
	declared, err := a.Core.EnrolmentFailed(r.Context(), claims.Hostname, failure)
	if err != nil {
		return err
	}
	a.Log.Warn("a host cannot enrol", "host", claims.Hostname, "declared", declared, "kind", failure.Kind, "reason", failure.Reason,
		"agentVersion", failure.AgentVersion, "occurredAt", failure.OccurredAt)
	return noContent(w)
}

// clip bounds what a host may have written down, in bytes.
func clip(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// addressOf is who a limit counts: an IPv4 address, or the /64 that one line has
// of IPv6.
func addressOf(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	address := peer.Addr().Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	line, _ := address.Prefix(64) // fits every IPv6 address
	return line.String()
}
