package issuer_test

import (
	"bufio"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/controlplane/issuer"
	"nixfleet/internal/identity"
)

var epoch = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// authority is a CA in files, as the control plane is given it.
func authority(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := identity.NewKey()
	must(t, err)
	ca, err := identity.NewCA("fleet CA", key, epoch, 365*24*time.Hour)
	must(t, err)
	keyPEM, err := identity.EncodeKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	must(t, os.WriteFile(certFile, identity.EncodeCertificate(ca.Cert), 0o644))
	must(t, os.WriteFile(keyFile, keyPEM, 0o600))
	return certFile, keyFile
}

// newIssuer has a new authority and an audit log that is not there yet.
func newIssuer(t *testing.T) (*issuer.Issuer, issuer.Config) {
	t.Helper()
	ca, err := issuer.Load(authority(t))
	must(t, err)
	c := issuer.Config{
		CA: ca, AuditLog: filepath.Join(t.TempDir(), "audit.jsonl"), Suffix: "fleet.example", Validity: identity.DefaultValidity,
	}
	return issuer.New(c), c
}

func hostKey(t *testing.T) ed25519.PublicKey {
	t.Helper()
	key, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	return key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAgent: a host gets the certificate that it would accept.
func TestAgent(t *testing.T) {
	i, c := newIssuer(t)
	key := hostKey(t)
	cert, err := i.Agent("web-1", key, epoch, "bootstrap token")
	must(t, err)
	_, err = identity.CheckCertificate(identity.EncodeCertificate(cert), identity.Expected{
		MachineID: "web-1", Key: key, Now: epoch, IssuanceCAs: []string{string(identity.EncodeCertificate(c.CA.Cert))},
	})
	must(t, err)
	if got := cert.Subject.CommonName; got != "agent-web-1.fleet.example" {
		t.Errorf("common name is %s", got)
	}
	if got := cert.NotAfter; !got.Equal(epoch.Add(identity.DefaultValidity)) {
		t.Errorf("it ends at %s", got)
	}
}

// TestRoles: an operator's certificate is an operator's, and a server's has no role.
func TestRoles(t *testing.T) {
	i, c := newIssuer(t)
	roots := x509.NewCertPool()
	roots.AddCert(c.CA.Cert)

	operator, err := i.Operator("ada", hostKey(t), epoch, time.Hour, "ada")
	must(t, err)
	if role, ok := identity.RoleOf(operator); !ok || role != (identity.Role{Kind: identity.Operator, Name: "ada"}) {
		t.Errorf("the operator's role is %v, %v", role, ok)
	}
	server, err := i.Server([]string{"cp.example", "10.0.0.1"}, hostKey(t), epoch, time.Hour, "init")
	must(t, err)
	if role, ok := identity.RoleOf(server); ok {
		t.Errorf("the server has the role %v", role)
	}
	for _, name := range []string{"cp.example", "10.0.0.1"} {
		_, err := server.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: epoch})
		must(t, err)
	}
	if server.IsCA || operator.IsCA {
		t.Error("an authority was issued")
	}
}

// TestAuditLog: one line for each certificate, in the order of issuance, in a file
// that nobody else may read.
func TestAuditLog(t *testing.T) {
	i, c := newIssuer(t)
	key := hostKey(t)
	agent, err := i.Agent("web-1", key, epoch, "bootstrap token 1234")
	must(t, err)
	operator, err := i.Operator("ada", hostKey(t), epoch, time.Hour, "bob")
	must(t, err)
	server, err := i.Server([]string{"cp.example", "10.0.0.1"}, hostKey(t), epoch, time.Hour, "init")
	must(t, err)

	lines := readLog(t, c.AuditLog)
	if len(lines) != 3 {
		t.Fatalf("the log has %d lines", len(lines))
	}
	for n, cert := range []*x509.Certificate{agent, operator, server} {
		if got, want := lines[n]["serial"], cert.SerialNumber.Text(16); got != want {
			t.Errorf("line %d: serial %s, want %s", n, got, want)
		}
	}
	want := map[string]string{
		"time": "2026-01-05T12:00:00Z", "serial": agent.SerialNumber.Text(16), "keyFingerprint": identity.Fingerprint(key),
		"role": "agent", "name": "web-1", "notAfter": "2026-02-04T12:00:00Z", "requester": "bootstrap token 1234",
	}
	if got := fmt.Sprint(lines[0]); got != fmt.Sprint(want) {
		t.Errorf("the agent's line is\n%s, want\n%s", got, fmt.Sprint(want))
	}
	for n, want := range [][2]string{{"agent", "web-1"}, {"operator", "ada"}, {"server", "cp.example"}} {
		if got := [2]string{lines[n]["role"], lines[n]["name"]}; got != want {
			t.Errorf("line %d is of %v, want %v", n, got, want)
		}
	}
	info, err := os.Stat(c.AuditLog)
	must(t, err)
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the log has mode %04o", mode)
	}
}

func readLog(t *testing.T, file string) []map[string]string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	var lines []map[string]string
	for s := bufio.NewScanner(f); s.Scan(); {
		var line map[string]string
		must(t, json.Unmarshal(s.Bytes(), &line))
		lines = append(lines, line)
	}
	return lines
}

// TestLogRotated: the log may be renamed between two certificates.
func TestLogRotated(t *testing.T) {
	i, c := newIssuer(t)
	for range 2 {
		_, err := i.Agent("web-1", hostKey(t), epoch, "renewal")
		must(t, err)
		if n := len(readLog(t, c.AuditLog)); n != 1 {
			t.Errorf("the log has %d lines", n)
		}
		must(t, os.Rename(c.AuditLog, c.AuditLog+".1"))
	}
}

// TestNoLogNoCertificate: what cannot be written down is not issued.
func TestNoLogNoCertificate(t *testing.T) {
	_, c := newIssuer(t)
	c.AuditLog = filepath.Join(t.TempDir(), "missing", "audit.jsonl")
	if cert, err := issuer.New(c).Agent("web-1", hostKey(t), epoch, "renewal"); err == nil || cert != nil {
		t.Errorf("issued %v, %v", cert, err)
	}
}

// TestManyAtOnce: lines do not run into each other.
func TestManyAtOnce(t *testing.T) {
	i, c := newIssuer(t)
	var all sync.WaitGroup
	for range 20 {
		key := hostKey(t)
		all.Go(func() {
			if _, err := i.Agent("web-1", key, epoch, strings.Repeat("x", 8<<10)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	serials := map[string]bool{}
	for _, line := range readLog(t, c.AuditLog) {
		serials[line["serial"]] = true
	}
	if len(serials) != 20 {
		t.Errorf("the log has %d serials, want 20", len(serials))
	}
}

// TestRefused: what is refused is not written down.
func TestRefused(t *testing.T) {
	i, c := newIssuer(t)
	for name, issue := range map[string]func() (*x509.Certificate, error){
		"a name that is none":    func() (*x509.Certificate, error) { return i.Agent("../x", hostKey(t), epoch, "") },
		"an operator likewise":   func() (*x509.Certificate, error) { return i.Operator("", hostKey(t), epoch, time.Hour, "") },
		"a server without names": func() (*x509.Certificate, error) { return i.Server(nil, hostKey(t), epoch, time.Hour, "") },
		"a key that is none":     func() (*x509.Certificate, error) { return i.Agent("web-1", "key", epoch, "") },
		"an authority that ended": func() (*x509.Certificate, error) {
			return i.Agent("web-1", hostKey(t), epoch.Add(400*24*time.Hour), "")
		},
	} {
		if cert, err := issue(); err == nil || cert != nil {
			t.Errorf("%s: issued %v, %v", name, cert, err)
		}
	}
	if _, err := os.Stat(c.AuditLog); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written down: %v", err)
	}
}

// elsewhere signs digests as a TPM or a command does: its key is not at hand.
type elsewhere struct {
	crypto.Signer
	asked int
}

func (e *elsewhere) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	e.asked++
	return e.Signer.Sign(random, digest, opts)
}

// TestSignsElsewhere: the key need not be in a file.
func TestSignsElsewhere(t *testing.T) {
	_, c := newIssuer(t)
	signer := &elsewhere{Signer: c.CA.Signer}
	ca, err := identity.LoadCA(identity.EncodeCertificate(c.CA.Cert), signer)
	must(t, err)
	c.CA = ca
	cert, err := issuer.New(c).Agent("web-1", hostKey(t), epoch, "renewal")
	must(t, err)
	if signer.asked != 1 {
		t.Errorf("it was asked %d times", signer.asked)
	}
	must(t, cert.CheckSignatureFrom(ca.Cert))
}

// TestLoad: what cannot be an authority says why, and what to do.
func TestLoad(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(certFile, keyFile string) error
		want  string
	}{
		"readable by the group": {func(_, key string) error { return os.Chmod(key, 0o640) }, "has mode 0640, so others can read it: chmod 600 "},
		"readable by others":    {func(_, key string) error { return os.Chmod(key, 0o604) }, "has mode 0604"},
		"a folder": {func(_, key string) error {
			return errors.Join(os.Remove(key), os.Mkdir(key, 0o700))
		}, "is not a regular file"},
		"no key file":    {func(_, key string) error { return os.Remove(key) }, "no such file"},
		"no key in it":   {func(_, key string) error { return os.WriteFile(key, []byte("x"), 0o600) }, "CA key "},
		"no certificate": {func(cert, _ string) error { return os.Remove(cert) }, "CA certificate: "},
		"none in it":     {func(cert, _ string) error { return os.WriteFile(cert, []byte("x"), 0o600) }, "CA certificate "},
		"of another key": {func(cert, _ string) error {
			other, _ := authority(t)
			return os.Rename(other, cert)
		}, "CA certificate "},
	} {
		t.Run(name, func(t *testing.T) {
			certFile, keyFile := authority(t)
			must(t, c.spoil(certFile, keyFile))
			_, err := issuer.Load(certFile, keyFile)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
