package identity_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"nixfleet/internal/identity"
)

const day = 24 * time.Hour

func newCA(t *testing.T, now time.Time) identity.CA {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := identity.NewCA("test fleet", key, now, 365*day)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issueAgent(t *testing.T, ca identity.CA, host, suffix string, key crypto.PublicKey, now time.Time) *x509.Certificate {
	t.Helper()
	template, err := identity.AgentTemplate(host, suffix, now, identity.DefaultValidity)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(template, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestAgentCertificate(t *testing.T) {
	ca, key := newCA(t, ten), publicOf(hostKey(t))
	for suffix, name := range map[string]string{"": "web-01", "fleet.example": "agent-web-01.fleet.example"} {
		cert := issueAgent(t, ca, "web-01", suffix, key, ten)
		if cert.Subject.CommonName != name || len(cert.DNSNames) != 1 || cert.DNSNames[0] != name {
			t.Errorf("names %s %v, want %s", cert.Subject.CommonName, cert.DNSNames, name)
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != "nixfleet:agent:web-01" {
			t.Errorf("URIs %v", cert.URIs)
		}
		if cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
			t.Errorf("usages %v %v", cert.KeyUsage, cert.ExtKeyUsage)
		}
		if !cert.NotBefore.Equal(ten) || !cert.NotAfter.Equal(ten.Add(30*day)) {
			t.Errorf("from %s to %s", cert.NotBefore, cert.NotAfter)
		}
		if cert.IsCA || cert.SerialNumber.BitLen() < 32 {
			t.Errorf("CA %v, serial %s", cert.IsCA, cert.SerialNumber)
		}
		role, ok := identity.RoleOf(cert)
		if !ok || role != (identity.Role{Kind: identity.Agent, Name: "web-01"}) {
			t.Errorf("%v, %v", role, ok)
		}
	}
}

func TestSerialsAreRandom(t *testing.T) {
	ca, key := newCA(t, ten), publicOf(hostKey(t))
	seen := map[string]bool{}
	for range 20 {
		serial := issueAgent(t, ca, "web-01", "", key, ten).SerialNumber
		if seen[serial.String()] || serial.Cmp(big.NewInt(1<<32)) < 0 {
			t.Fatalf("serial %s", serial)
		}
		seen[serial.String()] = true
	}
}

func TestOperatorAndServerCertificates(t *testing.T) {
	ca := newCA(t, ten)
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template, err := identity.OperatorTemplate("alice@example.org", ten, day)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := ca.Issue(template, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if role, ok := identity.RoleOf(operator); !ok || role != (identity.Role{Kind: identity.Operator, Name: "alice@example.org"}) {
		t.Errorf("%v, %v", role, ok)
	}
	template, err = identity.ServerTemplate([]string{"cp.example", "127.0.0.1", "::1"}, ten, day)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Issue(template, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if role, ok := identity.RoleOf(server); ok {
		t.Errorf("a server with the role %v", role)
	}
	if len(server.DNSNames) != 1 || len(server.IPAddresses) != 2 {
		t.Errorf("%v %v", server.DNSNames, server.IPAddresses)
	}
}

// TestTemplatesRefuse: names that could be read as something else, and
// certificates that end before they can be used.
func TestTemplatesRefuse(t *testing.T) {
	for _, name := range []string{"", "a:b", "../b", "a b", "-a", "a\n", "nixfleet:operator:x"} {
		if _, err := identity.AgentTemplate(name, "", ten, day); err == nil {
			t.Errorf("agent %q", name)
		}
		if _, err := identity.OperatorTemplate(name, ten, day); err == nil {
			t.Errorf("operator %q", name)
		}
	}
	if _, err := identity.AgentTemplate("web-01", "", ten, 59*time.Second); err == nil {
		t.Error("59 s")
	}
	if _, err := identity.AgentTemplate("web-01", "", ten, time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := identity.ServerTemplate(nil, ten, day); err == nil {
		t.Error("a server without a name")
	}
}

// TestRoleNeedsExactlyOneURI: no role from a name, from two URIs, or from a CA.
func TestRoleNeedsExactlyOneURI(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	agent := uri("nixfleet:agent:web-01")
	for name, cert := range map[string]*x509.Certificate{
		"none":         {},
		"two":          {URIs: []*url.URL{agent, uri("nixfleet:operator:alice")}},
		"the same two": {URIs: []*url.URL{agent, agent}},
		"a CA":         {URIs: []*url.URL{agent}, IsCA: true},
		"unknown kind": {URIs: []*url.URL{uri("nixfleet:admin:alice")}},
		"no name":      {URIs: []*url.URL{uri("nixfleet:agent:")}},
		"with slashes": {URIs: []*url.URL{uri("nixfleet://agent:1/web-01")}},
		"bad name":     {URIs: []*url.URL{uri("nixfleet:agent:web-01:operator")}},
		"DNS only":     {DNSNames: []string{"agent-web-01.fleet"}},
	} {
		if role, ok := identity.RoleOf(cert); ok {
			t.Errorf("%s: %v", name, role)
		}
	}
	if role, ok := identity.RoleOf(&x509.Certificate{URIs: []*url.URL{uri("spiffe://elsewhere/x"), agent}}); !ok || role.Name != "web-01" {
		t.Errorf("beside another's URI: %v, %v", role, ok)
	}
	if _, ok := identity.RoleOf(nil); ok {
		t.Error("nil")
	}
}

func TestCheckCertificate(t *testing.T) {
	ca, stranger := newCA(t, ten), newCA(t, ten)
	key := publicOf(hostKey(t))
	otherKey, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := identity.OperatorTemplate("web-01", ten, day)
	if err != nil {
		t.Fatal(err)
	}
	operatorCert, err := ca.Issue(operator, key)
	if err != nil {
		t.Fatal(err)
	}
	renamed, err := identity.AgentTemplate("web-01", "fleet", ten, day)
	if err != nil {
		t.Fatal(err)
	}
	renamed.Subject.CommonName = "agent-web-02.fleet"
	renamedCert, err := ca.Issue(renamed, key)
	if err != nil {
		t.Fatal(err)
	}
	pem := func(ca identity.CA, host, suffix string, key ed25519.PublicKey) []byte {
		return identity.EncodeCertificate(issueAgent(t, ca, host, suffix, key, ten))
	}
	good := pem(ca, "web-01", "fleet.example", key)
	pinned := []string{string(identity.EncodeCertificate(ca.Cert))}
	tests := []struct {
		name string
		cert []byte
		now  time.Time
		cas  []string
		want error
	}{
		{"good", good, ten, pinned, nil},
		{"bare machine id", pem(ca, "web-01", "", key), ten, pinned, nil},
		{"second pinned authority", good, ten, append([]string{string(identity.EncodeCertificate(stranger.Cert))}, pinned...), nil},
		{"issuer's clock ahead", good, ten.Add(-4 * time.Minute), pinned, nil},
		{"not yet valid", good, ten.Add(-6 * time.Minute), pinned, identity.ErrCertDates},
		{"expired", good, ten.Add(30*day + time.Second), pinned, identity.ErrCertDates},
		{"another key", pem(ca, "web-01", "", otherKey), ten, pinned, identity.ErrCertKey},
		{"another machine", pem(ca, "web-02", "", key), ten, pinned, identity.ErrCertName},
		{"another machine with a longer name", pem(ca, "web-01.b", "fleet", key), ten, pinned, identity.ErrCertName},
		{"another machine's common name", identity.EncodeCertificate(renamedCert), ten, pinned, identity.ErrCertName},
		{"operator of the same name", identity.EncodeCertificate(operatorCert), ten, pinned, identity.ErrCertRole},
		{"stranger's authority", pem(stranger, "web-01", "", key), ten, pinned, identity.ErrCertChain},
		{"nothing pinned", good, ten, nil, identity.ErrCertChain},
		{"pinned rubbish", good, ten, []string{"x"}, identity.ErrCertChain},
		{"no PEM", []byte("x"), ten, pinned, identity.ErrCertMalformed},
		{"a key instead", read(t, "testdata/vectors/org-root.key.pem"), ten, pinned, identity.ErrCertMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cert, err := identity.CheckCertificate(test.cert, identity.Expected{MachineID: "web-01", Key: key, IssuanceCAs: test.cas, Now: test.now})
			if !errors.Is(err, test.want) || (err == nil) != (cert != nil) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

func TestCertificateNeverOutlivesItsCA(t *testing.T) {
	ca := newCA(t, ten)
	late := ca.Cert.NotAfter.Add(-time.Hour)
	if cert := issueAgent(t, ca, "web-01", "", publicOf(hostKey(t)), late); !cert.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("ends %s, the CA %s", cert.NotAfter, ca.Cert.NotAfter)
	}
	template, err := identity.AgentTemplate("web-01", "", ca.Cert.NotAfter, day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Issue(template, publicOf(hostKey(t))); err == nil {
		t.Error("issued by an expired CA")
	}
}

func TestLoadCA(t *testing.T) {
	ca := newCA(t, ten)
	keyPEM, err := identity.EncodeKey(ca.Signer)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.ParseKey(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.LoadCA(identity.EncodeCertificate(ca.Cert), key); err != nil {
		t.Error(err)
	}
	if _, err := identity.LoadCA(identity.EncodeCertificate(ca.Cert), newCA(t, ten).Signer); err == nil {
		t.Error("another CA's key was taken")
	}
	leaf := issueAgent(t, ca, "web-01", "", publicOf(hostKey(t)), ten)
	if _, err := identity.LoadCA(identity.EncodeCertificate(leaf), hostKey(t)); err == nil {
		t.Error("an agent's certificate was taken for an authority's")
	}
	for _, data := range [][]byte{nil, read(t, "testdata/invalid/hostkey/encrypted-pkcs8.key"), identity.EncodeCertificate(ca.Cert)} {
		if key, err := identity.ParseKey(data); err == nil {
			t.Errorf("%T", key)
		}
	}
}

func TestVerifyClient(t *testing.T) {
	ca := newCA(t, ten)
	leaf := issueAgent(t, ca, "web-01", "", publicOf(hostKey(t)), ten)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	chain := []*x509.Certificate{leaf}
	if expired, err := identity.VerifyClient(chain, roots, ten.Add(day)); err != nil || expired {
		t.Errorf("%v, %v", expired, err)
	}
	// Off for two months: still good for a renewal, and known to be expired.
	if expired, err := identity.VerifyClient(chain, roots, ten.Add(60*day)); err != nil || !expired {
		t.Errorf("%v, %v", expired, err)
	}
	if _, err := identity.VerifyClient(chain, x509.NewCertPool(), ten.Add(60*day)); !errors.Is(err, identity.ErrCertChain) {
		t.Errorf("expired and a stranger's: %v", err)
	}
	// The issuer's clock may be a minute ahead.
	if expired, err := identity.VerifyClient(chain, roots, ten.Add(-time.Minute)); err != nil || expired {
		t.Errorf("a minute early: %v, %v", expired, err)
	}
	if _, err := identity.VerifyClient(chain, roots, ten.Add(-61*time.Second)); !errors.Is(err, identity.ErrCertNotYet) {
		t.Errorf("not yet valid: %v", err)
	}
	if _, err := identity.VerifyClient(chain, x509.NewCertPool(), ten.Add(-day)); !errors.Is(err, identity.ErrCertChain) {
		t.Errorf("not yet valid and a stranger's: %v", err)
	}
	// Nothing lasts longer for it.
	if expired, err := identity.VerifyClient(chain, roots, leaf.NotAfter.Add(time.Second)); err != nil || !expired {
		t.Errorf("a second late: %v, %v", expired, err)
	}
	if _, err := identity.VerifyClient(nil, roots, ten); !errors.Is(err, identity.ErrCertMalformed) {
		t.Errorf("none: %v", err)
	}
	template, err := identity.ServerTemplate([]string{"cp"}, ten, day)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Issue(template, ca.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.VerifyClient([]*x509.Certificate{server}, roots, ten); !errors.Is(err, identity.ErrCertChain) {
		t.Errorf("a server's certificate as a client's: %v", err)
	}
}

func TestNeedsRenewal(t *testing.T) {
	cert := &x509.Certificate{NotBefore: ten, NotAfter: ten.Add(30 * day)}
	for _, test := range []struct {
		threshold float64
		after     time.Duration
		want      bool
	}{
		{0.5, 15*day - time.Second, false}, {0.5, 15 * day, true}, {0.5, 40 * day, true},
		{0.1, 26 * day, false}, {0.1, 27*day + time.Second, true}, {1, 0, true}, {0, 30 * day, true}, {0, 29 * day, false},
	} {
		if got := identity.NeedsRenewal(cert, test.threshold, ten.Add(test.after)); got != test.want {
			t.Errorf("threshold %v after %s: %v", test.threshold, test.after, got)
		}
	}
}

// TestMutualTLS: the certificates of this package hold in a real handshake, with
// the host's own SSH key as the client's.
func TestMutualTLS(t *testing.T) {
	now := time.Now()
	ca := newCA(t, now)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	template, err := identity.ServerTemplate([]string{"127.0.0.1"}, now, day)
	if err != nil {
		t.Fatal(err)
	}
	serverKey, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	serverCert, err := ca.Issue(template, serverKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		role, _ := identity.RoleOf(r.TLS.VerifiedChains[0][0])
		io.WriteString(w, string(role.Kind)+" "+role.Name)
	}))
	server.TLS = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey}},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
	}
	server.StartTLS()
	defer server.Close()

	key := hostKey(t)
	agent := issueAgent(t, ca, "web-01", "fleet", publicOf(key), now)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs:      roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{agent.Raw}, PrivateKey: key}},
	}}}
	defer client.CloseIdleConnections()
	response, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "agent web-01" {
		t.Errorf("%q, %v", body, err)
	}
}
