package api

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/identity"
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
	claims, err := a.token(req.Token, now)
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
	burned, err := a.Core.Burned(r.Context(), claims.Nonce, fingerprint)
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

// token verifies a bootstrap token.
func (a *API) token(raw json.RawMessage, now time.Time) (identity.Claims, error) {
	slot, ok := a.OrgRoot()
	if !ok {
		return identity.Claims{}, wire.Errorf(wire.SlugBadToken, "no root key is pinned here that could have signed a token")
	}
	token, err := identity.ParseToken(raw)
	if err == nil {
		var claims identity.Claims
		if claims, err = identity.VerifyToken(token, slot, now); err == nil {
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

// bootstrapReport logs why a host without a certificate cannot get one.
func (a *API) bootstrapReport(w http.ResponseWriter, r *http.Request, _ caller) error {
	if err := a.enrolByAddress.admit(addressOf(r)); err != nil {
		return err
	}
	var report wire.BootstrapReport
	if err := readJSON(r, &report); err != nil {
		return err
	}
	claims, err := a.token(report.Token, time.Now())
	if err != nil {
		return err
	}
	a.Log.Warn("a host cannot enrol", "host", claims.Hostname, "kind", clip(string(report.Event.Kind)), "reason", clip(report.Event.Reason),
		"agentVersion", clip(report.AgentVersion), "occurredAt", report.OccurredAt)
	return noContent(w)
}

// clip bounds what a host may write into the log.
func clip(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most]
	}
	return s
}

func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
