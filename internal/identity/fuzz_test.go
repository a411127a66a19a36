package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"testing"
	"time"

	"nixfleet/internal/identity"
)

// FuzzParsePublicKey: a host's key comes back from its line as it went, whatever
// comment it had.
func FuzzParsePublicKey(f *testing.F) {
	line := string(read(f, "testdata/vectors/ssh_host_ed25519_key.pub"))
	for _, text := range []string{
		line, line + line, "no-pty " + line, "# comment\n" + line, line + "\r\n", "ssh-ed25519", "ssh-ed25519 AAAA", "",
		string(read(f, "testdata/vectors/ssh_host_ed25519_key")),
		"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := identity.ParsePublicKey(text)
		if err != nil {
			return
		}
		if len(key) != ed25519.PublicKeySize {
			t.Fatalf("a key of %d bytes", len(key))
		}
		again, err := identity.ParsePublicKey(identity.FormatPublicKey(key, "comment"))
		if err != nil || !again.Equal(key) || identity.Fingerprint(again) != identity.Fingerprint(key) {
			t.Fatalf("%x came back as %x: %v", key, again, err)
		}
		if _, err := identity.ParseHostKey([]byte(text)); err == nil {
			t.Fatalf("%q is a public and a private key", text)
		}
	})
}

// FuzzParseCertificates: a certificate comes back from its PEM as it went, has a
// role only with a name that may be one, and is never taken by a host that pins
// another authority.
func FuzzParseCertificates(f *testing.F) {
	signer, err := identity.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	ca, err := identity.NewCA("nixfleet", signer, ten, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	other, err := identity.NewCA("other", signer, ten, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	host := hostKey(f).Public().(ed25519.PublicKey)
	template, err := identity.AgentTemplate("web-01", "fleet.example", ten, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	cert, err := ca.Issue(template, crypto.PublicKey(host))
	if err != nil {
		f.Fatal(err)
	}
	good := identity.EncodeCertificate(cert)
	pinned := string(identity.EncodeCertificate(other.Cert))
	f.Add(good)
	f.Add(identity.EncodeCertificate(ca.Cert))
	f.Add(append(bytes.Clone(good), identity.EncodeCertificate(ca.Cert)...))
	f.Add(good[:len(good)/2])
	seedInvalid(f, "csr", ".pem")
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := identity.ParseCertificates(data)
		if err != nil {
			return
		}
		if len(certs) == 0 {
			t.Fatal("no certificates and no error")
		}
		for _, cert := range certs {
			again, err := identity.ParseCertificates(identity.EncodeCertificate(cert))
			if err != nil || len(again) != 1 || !again[0].Equal(cert) {
				t.Fatalf("came back otherwise: %v", err)
			}
			role, ok := identity.RoleOf(cert)
			if ok && identity.CheckHostName(role.Name) != nil && identity.CheckOperatorName(role.Name) != nil {
				t.Fatalf("a role of %q", role.Name)
			}
			if ok && cert.IsCA {
				t.Fatalf("an authority that is %v", role)
			}
		}
		want := identity.Expected{MachineID: "web-01", Key: host, IssuanceCAs: []string{pinned}, Now: ten.Add(time.Minute)}
		if _, err := identity.CheckCertificate(data, want); err == nil {
			t.Fatal("a host takes what its pinned authority has not issued")
		}
	})
}
