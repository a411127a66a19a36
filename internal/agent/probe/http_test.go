package probe

import (
	"context"
	"encoding/pem"
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
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
	})
	return mux
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(site())
	defer server.Close()
	tests := []struct{ name, path, fields, want string }{
		{"ok", "/ok", ``, ""},
		{"body", "/ok", `,"bodyContains":"is well"`, ""},
		{"other body", "/ok", `,"bodyContains":"is bad"`, `do not contain "is bad"`},
		{"status", "/broken", ``, "answered 500, want 200: the database is gone"},
		{"status that is wanted", "/broken", `,"expectStatus":500`, ""},
		{"not found", "/nothing", ``, "answered 404"},
		{"redirect is an answer", "/moved", `,"expectStatus":302`, ""},
		{"redirect is not followed", "/moved", ``, "answered 302, want 200"},
		{"redirect is followed when asked", "/moved", `,"followRedirects":true,"bodyContains":"well"`, ""},
		{"redirect without end", "/round", `,"followRedirects":true`, "stopped after 10 redirects"},
		{"headers", "/echo", `,"headers":{"Host":"www.example","X-Token":"t1"},"bodyContains":"host=www.example token=t1 method=GET"`, ""},
		{"bad header", "/echo", `,"headers":{"a b":"c"}`, "invalid header"},
		{"searched to the limit", "/large", `,"bodyContains":"edge"`, ""},
		{"not beyond", "/large", `,"bodyContains":"beyond"`, "do not contain"},
		{"endless body", "/endless", `,"bodyContains":"yyy"`, ""},
		{"silence", "/silent", `,"timeoutSecs":1`, "no complete answer"},
		{"cut off", "/cut", ``, "unexpected EOF"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			check := checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s%s"%s}`, server.URL, test.path, test.fields), Machine{})
			expect(t, check(t.Context()), test.want)
		})
	}
}

func TestHTTPRefused(t *testing.T) {
	expect(t, checkOf(t, fmt.Sprintf(`{"kind":"http","url":"http://%s/"}`, closedAddress(t, "tcp4", "127.0.0.1:0")), Machine{})(t.Context()), "connection refused")
}

// TestHTTPS: only the given authority counts, and it is read anew every time.
func TestHTTPS(t *testing.T) {
	server := httptest.NewTLSServer(site())
	defer server.Close()
	server.Config.ErrorLog = quiet()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	withCA := checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s/ok","caCert":%q}`, server.URL, ca), Machine{})
	without := checkOf(t, fmt.Sprintf(`{"kind":"http","url":"%s/ok"}`, server.URL), Machine{})

	expect(t, without(t.Context()), "x509: certificate signed by unknown authority")
	expect(t, withCA(t.Context()), "caCert: open")
	write := func(data []byte) {
		if err := os.WriteFile(ca, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("nothing"))
	expect(t, withCA(t.Context()), "no PEM certificate in it")
	write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	expect(t, withCA(t.Context()), "")
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

func TestConnectTimeout(t *testing.T) {
	never := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, text := range []string{
		`{"kind":"http","url":"http://127.0.0.1/","connectTimeoutSecs":1,"timeoutSecs":60}`,
		`{"kind":"tcp","port":80,"connectTimeoutSecs":1}`,
	} {
		began := time.Now()
		expect(t, checkOf(t, text, Machine{Dial: never})(t.Context()), "deadline exceeded")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %s", text, took)
		}
	}
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
