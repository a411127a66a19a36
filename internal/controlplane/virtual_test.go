package controlplane_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/controlplane"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/wire"
)

// pipes is a listener whose connections are made in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A control plane lives in virtual time: an hour of polls that nobody answers
// takes no hour, and its health is the truth all along.
func TestAnHourInVirtualTime(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f) // only for its configuration
	w.stop()
	synctest.Test(t, func(t *testing.T) {
		cp, err := controlplane.New(t.Context(), w.config)
		if err != nil {
			t.Fatal(err)
		}
		listener := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- cp.Run(ctx, listener, nil) }()

		cert, err := tls.LoadX509KeyPair(f.OperatorCert(), f.OperatorKey())
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(f.CACert())
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport := &http.Transport{DialContext: listener.dial, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert},
				// The files are of the real time, the bubble's is another.
				Time: func() time.Time { return time.Now() }, InsecureSkipVerify: true}}
		client := &http.Client{Transport: transport}
		for range 60 {
			time.Sleep(time.Minute)
			resp, err := client.Get("https://127.0.0.1" + wire.PathHealthz)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("health after a minute: %d %s, %v", resp.StatusCode, body, err)
			}
		}
		transport.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
