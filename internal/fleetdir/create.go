package fleetdir

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"nixfleet/internal/identity"
	"nixfleet/internal/nix"
)

// Options say what differs between fleets.
type Options struct {
	// Names are the DNS names and addresses of the control plane.
	Names []string
	// URL is how hosts and operators reach it.
	URL string
	// Operator is the name in the operator's certificate.
	Operator string
	Now      time.Time
}

// Listen is the port of the URL, as an address to listen on.
func (o Options) Listen() string {
	u, err := url.Parse(o.URL)
	if err != nil || u.Port() == "" {
		return ":443"
	}
	return ":" + u.Port()
}

// How long the certificates of a new folder last. A fleet that outlives its CA
// pins the next one beside it before that.
const (
	caValidity       = 10 * 365 * 24 * time.Hour
	serverValidity   = 825 * 24 * time.Hour
	operatorValidity = 365 * 24 * time.Hour
)

//go:embed fleet.json
var exampleFleet []byte

//go:embed README.md.tmpl
var readme string

var readmeTemplate = template.Must(template.New("README.md").Parse(readme))

// Create makes a fleet folder in dir, which must be empty or absent.
func Create(dir string, o Options) (Folder, error) {
	f := Folder(dir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("make a fleet folder: %w", err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("make a fleet folder: %s holds something already; name a new one", dir)
	}
	w := &writer{}
	ci, org := w.signingKey(f.CIKey()), w.signingKey(f.OrgRootKey())
	cacheKey, err := nix.GenerateKey("fleet-1")
	w.fail(err)
	w.secret(f.CacheKey(), []byte(cacheKey.Text()+"\n"))
	ca := w.authority(f, o.Now)
	server, err := identity.ServerTemplate(o.Names, o.Now, serverValidity)
	w.fail(err)
	w.certificate(ca, server, f.ServerCert(), f.ServerKey())
	operator, err := identity.OperatorTemplate(o.Operator, o.Now, operatorValidity)
	w.fail(err)
	w.certificate(ca, operator, f.OperatorCert(), f.OperatorKey())
	if w.err != nil {
		return "", fmt.Errorf("make a fleet folder: %w", w.err)
	}
	caPem := string(identity.EncodeCertificate(ca.Cert))
	w.json(f.Trust(), trustFile{
		SchemaVersion:  1,
		CIReleaseKey:   slotOf(ci),
		OrgRootKey:     slotOf(org),
		CacheKeys:      []string{cacheKey.Public().String()},
		RootCAPem:      caPem,
		IssuanceCAPems: []string{caPem},
	})
	w.public(f.Fleet(), exampleFleet)
	w.public(f.Config(), config(o.URL))
	var text strings.Builder
	w.fail(readmeTemplate.Execute(&text, o))
	w.public(f.Readme(), []byte(text.String()))
	if w.err != nil {
		return "", fmt.Errorf("make a fleet folder: %w", w.err)
	}
	return f, nil
}

// config is the operator's configuration; its paths are relative to it.
func config(url string) []byte {
	return fmt.Appendf(nil, `# For nixfleet --config FILE, or NIXFLEET_CONFIG=FILE.
cp-url = %q
ca-cert = "ca/ca.pem"
client-cert = "operator/operator.pem"
client-key = "operator/operator.key"
`, url)
}

type trustFile struct {
	SchemaVersion  int      `json:"schemaVersion"`
	CIReleaseKey   slot     `json:"ciReleaseKey"`
	OrgRootKey     slot     `json:"orgRootKey"`
	CacheKeys      []string `json:"cacheKeys"`
	RootCAPem      string   `json:"rootCaPem"`
	IssuanceCAPems []string `json:"issuanceCaPems"`
}

type slot struct {
	Current key `json:"current"`
}

type key struct {
	Algorithm string `json:"algorithm"`
	Public    string `json:"public"`
}

func slotOf(public ed25519.PublicKey) slot {
	return slot{Current: key{Algorithm: "ed25519", Public: base64.StdEncoding.EncodeToString(public)}}
}

// writer writes files until the first error.
type writer struct{ err error }

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) secret(path string, data []byte) { w.file(path, data, 0o600) }
func (w *writer) public(path string, data []byte) { w.file(path, data, 0o644) }

func (w *writer) file(path string, data []byte, mode fs.FileMode) {
	if w.err != nil {
		return
	}
	w.fail(os.MkdirAll(filepath.Dir(path), 0o700))
	w.fail(os.WriteFile(path, data, mode))
}

func (w *writer) json(path string, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	w.fail(err)
	w.public(path, append(data, '\n'))
}

// signingKey makes an ed25519 key and returns its public half.
func (w *writer) signingKey(path string) ed25519.PublicKey {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	w.fail(err)
	w.key(path, private)
	return public
}

func (w *writer) key(path string, key crypto.Signer) {
	if w.err != nil {
		return
	}
	pem, err := identity.EncodeKey(key)
	w.fail(err)
	w.secret(path, pem)
}

func (w *writer) authority(f Folder, now time.Time) identity.CA {
	key, err := identity.NewKey()
	w.fail(err)
	if w.err != nil {
		return identity.CA{}
	}
	ca, err := identity.NewCA("nixfleet", key, now, caValidity)
	w.fail(err)
	if w.err != nil {
		return identity.CA{}
	}
	w.public(f.CACert(), identity.EncodeCertificate(ca.Cert))
	w.key(f.CAKey(), key)
	return ca
}

func (w *writer) certificate(ca identity.CA, template *x509.Certificate, certFile, keyFile string) {
	if w.err != nil {
		return
	}
	w.fail(Issue(ca, template, certFile, keyFile))
}

// Issue makes a key and a certificate for it, and writes both. Neither file may
// exist.
func Issue(ca identity.CA, template *x509.Certificate, certFile, keyFile string) error {
	for _, path := range []string{certFile, keyFile} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already", path)
		}
	}
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	cert, err := ca.Issue(template, key.Public())
	if err != nil {
		return err
	}
	w := &writer{}
	w.key(keyFile, key)
	w.public(certFile, identity.EncodeCertificate(cert))
	return w.err
}
