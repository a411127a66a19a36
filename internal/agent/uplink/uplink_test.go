package uplink

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// server is a control plane's front: real TLS 1.3, certificates asked for.
type server struct {
	*httptest.Server
	t     *testing.T
	dir   string
	ca    identity.CA
	conns atomic.Int64

	mu    sync.Mutex
	certs []string // serial numbers that were presented, "" for none
}

func newServer(t *testing.T, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	key := s.key()
	var err error
	s.ca, err = identity.NewCA("test", key, time.Now(), time.Hour)
	s.must(err)
	serverKey := s.key()
	template, err := identity.ServerTemplate([]string{"127.0.0.1"}, time.Now(), time.Hour)
	s.must(err)
	cert, err := s.ca.Issue(template, serverKey.Public())
	s.must(err)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serial := ""
		if len(r.TLS.PeerCertificates) > 0 {
			serial = r.TLS.PeerCertificates[0].SerialNumber.String()
		}
		s.mu.Lock()
		s.certs = append(s.certs, serial)
		s.mu.Unlock()
		handler(w, r)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // some clients do not like it, on purpose
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: serverKey}}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	s.writeRoots(s.ca)
	return s
}

func (s *server) key() *ecdsa.PrivateKey {
	key, err := identity.NewKey()
	s.must(err)
	return key
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) writeRoots(ca identity.CA) {
	s.must(os.WriteFile(s.dir+"/ca.pem", identity.EncodeCertificate(ca.Cert), 0o600))
}

// enrol writes a key and a certificate for it, and gives the certificate's serial
// number.
func (s *server) enrol() string {
	s.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	s.must(err)
	block, err := ssh.MarshalPrivateKey(private, "")
	s.must(err)
	template, err := identity.AgentTemplate("web-01", "", time.Now(), time.Hour)
	s.must(err)
	cert, err := s.ca.Issue(template, public)
	s.must(err)
	for file, data := range map[string][]byte{"key": pem.EncodeToMemory(block), "cert.pem": identity.EncodeCertificate(cert)} {
		tmp := filepath.Join(s.dir, "new")
		s.must(os.WriteFile(tmp, data, 0o600))
		s.must(os.Rename(tmp, filepath.Join(s.dir, file)))
	}
	return cert.SerialNumber.String()
}

func (s *server) client() *Client {
	base, err := url.Parse(s.URL)
	s.must(err)
	c := New(Config{URL: base, CACertFile: s.dir + "/ca.pem", CertFile: s.dir + "/cert.pem", KeyFile: s.dir + "/key", AgentVersion: "9"})
	s.t.Cleanup(c.Close)
	return c
}

func TestEveryRequestHasTheProtocolsHeaders(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(wire.HeaderProtocol) != "1" || r.Header.Get(wire.HeaderAgentVersion) != "9" || r.ProtoMajor != 2 {
			t.Errorf("%s %s: %v %s", r.Method, r.URL, r.Header, r.Proto)
		}
		json.NewEncoder(w).Encode(wire.BatchResponse{Results: []wire.BatchResult{{}}})
	})
	c, ctx := s.client(), t.Context()
	_, err1 := c.Dispatch(ctx, time.Minute)
	_, err2 := c.Heartbeat(ctx, wire.HeartbeatRequest{})
	_, err3 := c.Events(ctx, []wire.Envelope{{}})
	_, _, err4 := c.Document(ctx, "/doc", "/doc/sig", "")
	_, err5 := c.Enroll(ctx, wire.EnrollRequest{})
	_, err6 := c.Renew(ctx, wire.RenewRequest{})
	for _, err := range []error{err1, err2, err3, err4, err5, err6, c.Event(ctx, wire.Envelope{}), c.Reject(ctx, wire.Reject{}), c.Report(ctx, wire.BootstrapReport{}), c.Reach(ctx)} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestACertificateIsUsedAsSoonAsItIsThere(t *testing.T) {
	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	c := s.client()
	want := []string{""}
	s.must(c.Reject(t.Context(), wire.Reject{}))
	for range 2 {
		serial := s.enrol()
		want = append(want, serial, serial)
		s.must(c.Reject(t.Context(), wire.Reject{}))
		s.must(c.Reject(t.Context(), wire.Reject{}))
	}
	if got, want := strings.Join(s.certs, " "), strings.Join(want, " "); got != want {
		t.Errorf("presented\n%s, want\n%s", got, want)
	}
	if n := s.conns.Load(); n != 3 {
		t.Errorf("%d connections, want one for each certificate", n)
	}
}

func TestOnlyTheGivenRootsCount(t *testing.T) {
	s := newServer(t, func(http.ResponseWriter, *http.Request) { t.Error("a server that nobody vouches for was asked") })
	stranger, err := identity.NewCA("stranger", s.key(), time.Now(), time.Hour)
	s.must(err)
	s.writeRoots(stranger)
	var unknown x509.UnknownAuthorityError
	if err := s.client().Reach(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
}

func TestReachOpensItsOwnConnection(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	c := s.client()
	for range 3 {
		s.must(c.Reach(t.Context())) // an answer of any status will do
	}
	if n := s.conns.Load(); n != 3 {
		t.Errorf("%d connections for 3 calls", n)
	}
	if c.LastAnswer().IsZero() {
		t.Error("the answer was not noted")
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		header string // Retry-After
		body   string
		want   wire.Error
	}{
		{"with a slug", 409, "", `{"error":"gap","detail":"missing","expectedSeq":4}`, wire.Error{Slug: "gap", Detail: "missing", ExpectedSeq: 4, Code: 409}},
		{"to be asked later", 503, "30", `{"error":"no-slot","detail":"none"}`, wire.Error{Slug: "no-slot", Detail: "none", Code: 503, RetryAfter: 30 * time.Second}},
		{"of something in between", 502, "", `<html>`, wire.Error{Detail: "Bad Gateway", Code: 502}},
		{"a redirect", 302, "", ``, wire.Error{Detail: "Found", Code: 302}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					t.Error("a redirect was followed")
				}
				w.Header().Set("Location", "/elsewhere")
				if test.header != "" {
					w.Header().Set("Retry-After", test.header)
				}
				w.WriteHeader(test.status)
				w.Write([]byte(test.body))
			})
			_, err := s.client().Heartbeat(t.Context(), wire.HeartbeatRequest{})
			var got *wire.Error
			if !errors.As(err, &got) || *got != test.want {
				t.Errorf("got %+v, want %+v", err, test.want)
			}
		})
	}
}

func TestDocuments(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/doc/sig":
			w.Write([]byte("signature"))
		case r.Header.Get("If-None-Match") == `"1"`:
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("ETag", `"1"`)
			w.Write([]byte("document"))
		}
	})
	c := s.client()
	doc, modified, err := c.Document(t.Context(), "/doc", "/doc/sig", "")
	if err != nil || !modified || string(doc.Bytes) != "document" || string(doc.Signature) != "signature" || doc.ETag != `"1"` {
		t.Errorf("%+v, %t, %v", doc, modified, err)
	}
	if _, modified, err := c.Document(t.Context(), "/doc", "/doc/sig", doc.ETag); err != nil || modified {
		t.Errorf("asked again: modified %t, %v", modified, err)
	}
}

// pipes is a client whose server answers over pipes, in virtual time.
func pipes(t *testing.T, serve func(net.Conn)) *Client {
	base := &url.URL{Scheme: "http", Host: "cp.test"} // what is tested here is below TLS
	return New(Config{URL: base, CertFile: "/nonexistent", KeyFile: "/nonexistent", Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go serve(theirs)
		t.Cleanup(func() { theirs.Close() })
		return ours, nil
	}})
}

func TestAServerThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipes(t, func(conn net.Conn) {
			for buffer := make([]byte, 1024); ; {
				if _, err := conn.Read(buffer); err != nil {
					return
				}
			}
		})
		for name, ask := range map[string]func() error{
			"heartbeat": func() error { _, err := c.Heartbeat(t.Context(), wire.HeartbeatRequest{}); return err },
			"dispatch":  func() error { _, err := c.Dispatch(t.Context(), 15*time.Second); return err },
			"document":  func() error { _, _, err := c.Document(t.Context(), "/doc", "/doc/sig", ""); return err },
			"reach":     func() error { return c.Reach(t.Context()) },
		} {
			began := time.Now()
			if err := ask(); err == nil || time.Since(began) != 30*time.Second {
				t.Errorf("%s: %v after %s", name, err, time.Since(began))
			}
		}
		c.Close()
	})
}

func TestASlowDocumentMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := false
		c := pipes(t, func(conn net.Conn) {
			defer conn.Close()
			if _, err := conn.Read(make([]byte, 4096)); err != nil {
				return
			}
			conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"))
			for range 10 {
				time.Sleep(20 * time.Second)
				if stall {
					time.Sleep(20 * time.Second)
				}
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
			}
		})
		doc, _, err := c.Document(t.Context(), "/doc", "/doc/sig", "")
		if err != nil || len(doc.Bytes) != 10 {
			t.Errorf("%q, %v", doc.Bytes, err)
		}
		stall = true
		if _, _, err := c.Document(t.Context(), "/doc", "/doc/sig", ""); !errors.Is(err, errStalled) {
			t.Errorf("without progress: %v", err)
		}
		c.Close()
		time.Sleep(time.Minute) // the server notices
	})
}

func TestBackoff(t *testing.T) {
	b := Backoff{}
	limit := time.Second
	for n := range 20 {
		if d := b.Next(nil); d <= 0 || d > limit+1 {
			t.Errorf("attempt %d: %s, at most %s", n, d, limit)
		}
		limit = min(2*limit, 5*time.Minute)
	}
	asked := &wire.Error{RetryAfter: time.Hour}
	if d := b.Next(asked); d < time.Hour || d > 66*time.Minute+1 {
		t.Errorf("asked for an hour, waits %s", d)
	}
	b.Reset()
	if d := b.Next(nil); d > time.Second+1 {
		t.Errorf("after a success: %s", d)
	}
	short := Backoff{Max: 3 * time.Second}
	for range 20 {
		if d := short.Next(nil); d > 3*time.Second+1 {
			t.Errorf("at most 3 s, waits %s", d)
		}
	}
}
