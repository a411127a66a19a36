package probe

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// site answers every case that a probe tells apart.
func site() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "all is well") })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "the database is gone", 500) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host=%s token=%s method=%s", r.Host, r.Header.Get("X-Token"), r.Method)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Repeat("x", maxBody-4)+"edge"+strings.Repeat("x", maxBody)+"beyond")
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("y", 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/silent", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/half", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/hangup", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
	})
	return mux
}

// TestHTTP: every reason, to the letter.
func TestHTTP(t *testing.T) {
	server := httptest.NewServer(site())
	defer server.Close()
	tests := []struct{ name, path, fields, want string }{ // U is the address that is asked
		{"ok", "/ok", ``, ""},
		{"body", "/ok", `,"bodyContains":"is well"`, ""},
		{"other body", "/ok", `,"bodyContains":"is bad"`, `U: the first 65536 bytes of the body do not contain "is bad"`},
		{"status", "/broken", ``, "U answered 500, want 200: the database is gone"},
		{"status without a body", "/empty", ``, "U answered 503, want 200"},
		{"status that is wanted", "/broken", `,"expectStatus":500`, ""},
		{"not found", "/nothing", ``, "U answered 404, want 200: 404 page not found"},
		{"redirect is an answer", "/moved", `,"expectStatus":302`, ""},
		{"redirect is not followed", "/moved", ``, `U answered 302, want 200: <a href="/ok">Found</a>.`},
		{"redirect is followed when asked", "/moved", `,"followRedirects":true,"bodyContains":"well"`, ""},
		{"redirect without end", "/round", `,"followRedirects":true`, "no answer from U: stopped after 10 redirects"},
		{"headers", "/echo", `,"headers":{"Host":"www.example","X-Token":"t1"},"bodyContains":"host=www.example token=t1 method=GET"`, ""},
		{"bad header", "/echo", `,"headers":{"a b":"c"}`, `no answer from U: net/http: invalid header field name "a b"`},
		{"searched to the limit", "/large", `,"bodyContains":"edge"`, ""},
		{"not beyond", "/large", `,"bodyContains":"beyond"`, `U: the first 65536 bytes of the body do not contain "beyond"`},
		{"endless body", "/endless", `,"bodyContains":"yyy"`, ""},
		{"silence", "/silent", `,"timeoutSecs":1`, "no answer from U in time: context deadline exceeded"},
		{"silence after a beginning", "/half", `,"timeoutSecs":1`, "U answered 200, then: context deadline exceeded"},
		{"cut off", "/cut", ``, "U answered 200, then: unexpected EOF"},
		{"nothing at all", "/hangup", ``, "no answer from U: EOF"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			check := checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s%s"%s}`, server.URL, test.path, test.fields), Machine{})
			expectExactly(t, check(t.Context()), strings.ReplaceAll(test.want, "U", server.URL+test.path))
		})
	}
}

func TestHTTPRefused(t *testing.T) {
	address := closedAddress(t, "tcp4", "127.0.0.1:0")
	expectExactly(t, checkOf(t, fmt.Sprintf(`{"kind":"http","url":"http://%s/"}`, address), Machine{})(t.Context()),
		fmt.Sprintf("no answer from http://%s/: dial tcp %s: connect: connection refused", address, address))
}

// TestHTTPS: only the given authority counts, and it is read anew every time.
func TestHTTPS(t *testing.T) {
	server := httptest.NewUnstartedServer(site())
	server.Config.ErrorLog = quiet()
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	withCA := checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s/ok","caCert":%q}`, server.URL, ca), Machine{})
	without := checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s/ok"}`, server.URL), Machine{})

	expectExactly(t, without(t.Context()), fmt.Sprintf("no answer from %s/ok: tls: failed to verify certificate: x509: certificate signed by unknown authority", server.URL))
	expectExactly(t, withCA(t.Context()), fmt.Sprintf("caCert: open %s: no such file or directory", ca))
	write := func(data []byte) {
		if err := os.WriteFile(ca, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("nothing"))
	expectExactly(t, withCA(t.Context()), fmt.Sprintf("caCert %s: no PEM certificate in it", ca))
	write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	expectExactly(t, withCA(t.Context()), "")

	// The same server under a name that its certificate does not have.
	named := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	toServer := Machine{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}}
	expectExactly(t, checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s/ok","caCert":%q}`, named, ca), toServer)(t.Context()),
		fmt.Sprintf("no answer from %s/ok: tls: failed to verify certificate: x509: certificate is valid for example.com, *.example.com, not localhost", named))

	plain := httptest.NewServer(site())
	defer plain.Close()
	secure := strings.Replace(plain.URL, "http:", "https:", 1)
	expectExactly(t, checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s/ok"}`, secure), Machine{})(t.Context()),
		fmt.Sprintf("no answer from %s/ok: http: server gave HTTP response to HTTPS client", secure))
}

// TestHTTPIgnoresProxies: what is probed is this machine's own way.
func TestHTTPIgnoresProxies(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	server := httptest.NewServer(site())
	defer server.Close()
	// The name is not loopback, so that a proxy would be asked for it.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	expect(t, checkOf(t, `{"kind":"http","url":"http://www.example/ok"}`, Machine{Dial: dial})(t.Context()), "")
}

// TestConnectTimeout: a server that is too busy to take connections.
func TestConnectTimeout(t *testing.T) {
	address := busyAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		fmt.Sprintf(`{"kind":"http","url":"http://%s/","connectTimeoutSecs":1,"timeoutSecs":60}`, address): fmt.Sprintf("no answer from http://%s/ in time: dial tcp %s: i/o timeout", address, address),
		fmt.Sprintf(`{"kind":"tcp","port":%s,"connectTimeoutSecs":1}`, port):                               fmt.Sprintf("dial tcp %s: i/o timeout", address),
	} {
		began := time.Now()
		expectExactly(t, checkOf(t, text, Machine{})(t.Context()), want)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %s", text, took)
		}
	}
}

// busyAddress is a port whose listener takes nobody: its queue is full.
func busyAddress(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("a queue of no places takes ten connections")
	return ""
}

// closedAddress is a port on which nobody listens.
func closedAddress(t *testing.T, network, address string) string {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
