package api_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// C1, C19, C27: a renewal gives the presented certificate's name to the declared
// key, or nothing.
func TestRenewalKeepsNameAndKey(t *testing.T) {
	f := fleettest.New(t, 6)
	host, other, dated, barred, removed, rekeyed := f.Hosts[0], f.Hosts[1], f.Hosts[2], f.Hosts[3], f.Hosts[4], f.Hosts[5]
	now := time.Now()
	f.Revoke(fleet.Revocation{Hostname: dated.Name, NotBefore: now.Add(-time.Hour)})
	f.Revoke(fleet.Revocation{Hostname: barred.Name, NotBefore: now.Add(-20 * time.Hour), KeyFingerprint: fingerprint(barred)})
	f.Remove(removed.Name)
	fresh := &fleettest.Host{Name: rekeyed.Name, Key: newKey()}
	f.Declare(rekeyed.Name, fresh.Key.Public().(ed25519.PublicKey))
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")

	valid := func(h *fleettest.Host) *tls.Certificate {
		return agentCert(t, p.ca, h, now.Add(-time.Minute), time.Hour)
	}
	// Two months off, in short: the authority of this fleet is a day old.
	expired := func(h *fleettest.Host) *tls.Certificate {
		return agentCert(t, p.ca, h, now.Add(-3*time.Hour), time.Hour)
	}
	for _, c := range []struct {
		name string
		cert *tls.Certificate
		csr  string
		want verdict
	}{
		{"valid", valid(host), request(t, host), verdict{200, ""}},
		{"expired", expired(host), request(t, host), verdict{200, ""}},
		{"another declared host's name and key", valid(host), request(t, other), verdict{403, wire.SlugNameMismatch}},
		{"another declared host's name", valid(host), request(t, &fleettest.Host{Name: other.Name, Key: host.Key}), verdict{403, wire.SlugNameMismatch}},
		{"expired, another name", expired(host), request(t, other), verdict{403, wire.SlugNameMismatch}},
		{"another's key under the own name", valid(host), request(t, &fleettest.Host{Name: host.Name, Key: other.Key}), verdict{403, wire.SlugKeyMismatch}},
		{"an undeclared key", valid(host), request(t, &fleettest.Host{Name: host.Name, Key: newKey()}), verdict{403, wire.SlugKeyMismatch}},
		{"no proof of the key", valid(host), string(unproven([]byte(request(t, host)))), verdict{400, wire.SlugBadCSR}},
		{"revoked by date", agentCert(t, p.ca, dated, now.Add(-2*time.Hour), 24*time.Hour), request(t, dated), verdict{403, wire.SlugRevoked}},
		{"revoked by date, and expired", expired(dated), request(t, dated), verdict{403, wire.SlugRevoked}},
		{"issued after the revocation", valid(dated), request(t, dated), verdict{200, ""}},
		{"revoked by key", valid(barred), request(t, barred), verdict{403, wire.SlugRevoked}},
		{"revoked by key, renewed the day before", agentCert(t, p.ca, barred, now.Add(-23*time.Hour), 24*time.Hour), request(t, barred), verdict{403, wire.SlugRevoked}},
		{"removed", valid(removed), request(t, removed), verdict{403, wire.SlugHostNotDeclared}},
		{"removed, and expired", expired(removed), request(t, removed), verdict{403, wire.SlugHostNotDeclared}},
		{"the key that was declared before", valid(rekeyed), request(t, rekeyed), verdict{403, wire.SlugKeyMismatch}},
		{"expired, the key that was declared before", expired(rekeyed), request(t, rekeyed), verdict{403, wire.SlugKeyMismatch}},
		{"the key that is declared now", valid(rekeyed), request(t, fresh), verdict{200, ""}},
	} {
		client := p.client(c.cert)
		got, _, answer := client.ask("POST", wire.PathRenew, wire.RenewRequest{CSRPem: c.csr})
		if got != c.want {
			t.Errorf("%s: %+v %s, want %+v", c.name, got, answer, c.want)
		}
		if got.code != 200 {
			continue
		}
		var renewed wire.CertificateResponse
		decode(t, answer, &renewed)
		certs, err := identity.ParseCertificates([]byte(renewed.CertPem))
		must(t, err)
		before, _ := identity.RoleOf(c.cert.Leaf)
		after, ok := identity.RoleOf(certs[0])
		cn := "agent-" + before.Name + ".fleet.example"
		if !ok || after != before || certs[0].Subject.CommonName != cn || len(certs[0].DNSNames) != 1 || certs[0].DNSNames[0] != cn {
			t.Errorf("%s: renewed is %v, %s %v", c.name, after, certs[0].Subject.CommonName, certs[0].DNSNames)
		}
		key, err := x509.MarshalPKIXPublicKey(certs[0].PublicKey)
		must(t, err)
		declared, err := identity.ParsePublicKey(*f.Doc.Hosts[before.Name].Pubkey)
		must(t, err)
		want, err := x509.MarshalPKIXPublicKey(declared)
		must(t, err)
		if string(key) != string(want) {
			t.Errorf("%s: renewed for another key than the declared one", c.name)
		}
	}
}
