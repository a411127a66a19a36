package api_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nixfleet/internal/controlplane"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

var system = fleettest.Closure("nixos-new")

// plane is a control plane that serves a fleet: real TLS, real certificates, a
// real database.
type plane struct {
	t       *testing.T
	fleet   *fleettest.Fleet
	address string
	local   string
	ca      identity.CA
	roots   *x509.CertPool
}

func serve(t *testing.T, f *fleettest.Fleet) *plane {
	t.Helper()
	cp, err := controlplane.New(t.Context(), controlplane.Config{
		DB: "sqlite:" + filepath.Join(t.TempDir(), "state.db"), ReleaseSource: []string{f.Release()}, TrustFile: f.Trust(),
		TLSCert: f.ServerCert(), TLSKey: f.ServerKey(), ClientCA: f.CACert(), CACert: f.CACert(), CAKey: f.CAKey(),
		AgentCertValidity: time.Hour, AgentCertSuffix: "fleet.example", Heartbeat: time.Minute, SourceInterval: 100 * time.Millisecond,
		Version: "test", Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- cp.Run(ctx, listener, local) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	p := &plane{t: t, fleet: f, address: listener.Addr().String(), local: local.Addr().String(), ca: authority(t, f), roots: x509.NewCertPool()}
	p.roots.AddCert(p.ca.Cert)
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority is who signs the fleet's certificates.
func authority(t *testing.T, f *fleettest.Fleet) identity.CA {
	t.Helper()
	certPEM, err := os.ReadFile(f.CACert())
	must(t, err)
	keyPEM, err := os.ReadFile(f.CAKey())
	must(t, err)
	signer, err := identity.ParseKey(keyPEM)
	must(t, err)
	ca, err := identity.LoadCA(certPEM, signer)
	must(t, err)
	return ca
}

// agentCert issues a host's certificate, beginning at some time.
func agentCert(t *testing.T, ca identity.CA, h *fleettest.Host, from time.Time, validity time.Duration) *tls.Certificate {
	t.Helper()
	template, err := identity.AgentTemplate(h.Name, "", from, validity)
	must(t, err)
	return issue(t, ca, template, h.Key)
}

func issue(t *testing.T, ca identity.CA, template *x509.Certificate, key crypto.Signer) *tls.Certificate {
	t.Helper()
	cert, err := ca.Issue(template, key.Public())
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// operator is the fleet's own.
func (p *plane) operator() *client {
	p.t.Helper()
	cert, err := tls.LoadX509KeyPair(p.fleet.OperatorCert(), p.fleet.OperatorKey())
	must(p.t, err)
	return p.client(&cert)
}

// enrolled is a host with the certificate that its token got it.
func (p *plane) enrolled(h *fleettest.Host, token []byte) *client {
	p.t.Helper()
	var got wire.CertificateResponse
	must(p.t, json.Unmarshal(p.client(nil).want("POST", wire.PathEnroll, enrolment(p.t, h, token), 200, ""), &got))
	return p.client(pair(p.t, h, got))
}

// pair is a host's certificate as it was handed out, with its key.
func pair(t *testing.T, h *fleettest.Host, got wire.CertificateResponse) *tls.Certificate {
	t.Helper()
	certs, err := identity.ParseCertificates([]byte(got.CertPem))
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: h.Key, Leaf: certs[0]}
}

func enrolment(t *testing.T, h *fleettest.Host, token []byte) wire.EnrollRequest {
	t.Helper()
	return wire.EnrollRequest{Token: token, CSRPem: request(t, h)}
}

// request is a certificate request of a host.
func request(t *testing.T, h *fleettest.Host) string {
	t.Helper()
	csr, err := identity.NewCSR(h.Name, h.Key)
	must(t, err)
	return string(csr)
}

// client is somebody with a certificate, or without.
type client struct {
	*plane
	http   *http.Client
	header http.Header // of every request
}

func (p *plane) client(cert *tls.Certificate) *client { return p.clientAt("127.0.0.1", cert) }

// clientAt is somebody at an address of this machine.
func (p *plane) clientAt(address string, cert *tls.Certificate) *client {
	config := &tls.Config{RootCAs: p.roots}
	if cert != nil {
		// By the callback, which sends it whatever it is.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{TLSClientConfig: config, DialContext: dialer.DialContext, ForceAttemptHTTP2: true}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &client{plane: p, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}, header: http.Header{wire.HeaderProtocol: {"1"}}}
}

// verdict is what a request came to.
type verdict struct {
	code int
	slug wire.Slug // "" of a success
}

// ask makes a request. A body that is bytes is sent as it is.
func (c *client) ask(method, path string, body any) (verdict, http.Header, []byte) {
	c.t.Helper()
	raw, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		raw, err = json.Marshal(body)
		must(c.t, err)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, "https://"+c.address+path, bytes.NewReader(raw))
	must(c.t, err)
	req.Header = c.header.Clone()
	resp, err := c.http.Do(req)
	must(c.t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	must(c.t, err)
	got := verdict{code: resp.StatusCode}
	if got.code >= 400 && method != http.MethodHead {
		var e wire.Error
		if err := json.Unmarshal(answer, &e); err != nil || e.Slug == "" || e.Detail == "" {
			c.t.Errorf("%s %s: %d, and the error body is %q", method, path, got.code, answer)
		}
		got.slug = e.Slug
	}
	return got, resp.Header, answer
}

func (c *client) want(method, path string, body any, code int, slug wire.Slug) []byte {
	c.t.Helper()
	got, _, answer := c.ask(method, path, body)
	if got != (verdict{code, slug}) {
		c.t.Errorf("%s %s: %d %s, want %d %s: %s", method, path, got.code, got.slug, code, slug, answer)
	}
	return answer
}

// ready waits until the release of the fleet's folder is served and a rollout is
// open.
func (p *plane) ready(rollout string) {
	p.t.Helper()
	operator := p.operator()
	p.eventually("the rollout is open", func() bool {
		got, _, _ := operator.ask("GET", wire.Fill(wire.PathRolloutLifecycle, rollout), nil)
		return got.code == http.StatusOK
	})
}

func (p *plane) eventually(what string, is func() bool) {
	p.t.Helper()
	p.within(30*time.Second, what, is)
}

func (p *plane) within(d time.Duration, what string, is func() bool) {
	p.t.Helper()
	for end := time.Now().Add(d); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("it never came true: %s", what)
		}
	}
}
