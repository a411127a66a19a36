package activation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/nix"
	"nixfleet/internal/wire"
)

// uplinkTimeout is how long one uplink has to answer.
const uplinkTimeout = 20 * time.Second

// Uplinks are what a machine may reach to show that its network works. Any one
// of them will do.
type Uplinks struct {
	// ControlPlane, when set, returns nil when the control plane answered and was
	// authenticated, whatever it said, on a connection that this call opened.
	ControlPlane func(ctx context.Context) error

	Caches    []string
	CacheKeys []string
	Closures  []fleet.Closure // one of which a cache should have: target and prior

	URLs []string // https only

	// Dial opens connections to caches and URLs; nil means a plain dialler.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// RootCAs verify them; nil means the system's.
	RootCAs *x509.CertPool
}

// Via of Confirmed.
const (
	viaControlPlane = "control-plane"
	viaCache        = "cache"
	viaURL          = "url"
)

// Confirm tries all uplinks at once, each on a new connection, and is content
// with the first that answers.
func Confirm(ctx context.Context, m host.Machine, u Uplinks) (lifecycle.Body, error) {
	facts, err := m.Facts(ctx)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	tries := u.tries()
	limited, cancel := context.WithTimeout(ctx, uplinkTimeout)
	defer cancel()
	type answer struct {
		via string
		err error
	}
	answers := make(chan answer, len(tries)) // so that nobody waits for a reader
	for _, try := range tries {
		go func() { answers <- answer{try.via, try.reach(limited)} }()
	}
	var via string
	var failures error
	for range tries { // all of them: no goroutine is left behind
		a := <-answers
		switch {
		case via != "":
		case a.err == nil:
			via = a.via
			cancel()
		default:
			failures = errors.Join(failures, fmt.Errorf("%s: %w", a.via, a.err))
		}
	}
	switch {
	case via != "":
		return lifecycle.Confirmed{Via: via, BootID: facts.BootID}, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("confirm: %w", context.Cause(ctx))
	case failures == nil:
		failures = errors.New("no uplink is configured")
	}
	return nil, &Wait{On: wire.WaitingOnConfirm, Err: failures}
}

type try struct {
	via   string
	reach func(ctx context.Context) error
}

func (u Uplinks) tries() (all []try) {
	if u.ControlPlane != nil {
		all = append(all, try{viaControlPlane, u.ControlPlane})
	}
	for _, address := range u.Caches {
		all = append(all, try{viaCache, func(ctx context.Context) error { return u.reachCache(ctx, address) }})
	}
	for _, url := range u.URLs {
		all = append(all, try{viaURL, func(ctx context.Context) error { return u.reachURL(ctx, url) }})
	}
	return all
}

// reachCache wants a narinfo with a good signature: that no captive portal has.
func (u Uplinks) reachCache(ctx context.Context, address string) error {
	keys, err := nix.ParsePublicKeys(u.CacheKeys)
	if err != nil {
		return err
	}
	c, err := nix.NewClient(address, keys, nix.ClientOptions{Dial: u.Dial, RootCAs: u.RootCAs})
	if err != nil {
		return err
	}
	defer c.Close()
	err = errors.New("there is no closure to ask for")
	for _, closure := range u.Closures {
		if _, err = c.Info(ctx, string(closure)); err == nil {
			return nil
		}
	}
	return err
}

// reachURL wants any answer of the server that the URL names.
func (u Uplinks) reachURL(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	if req.URL.Scheme != "https" {
		return fmt.Errorf("%s proves nothing: only https does", req.URL.Redacted())
	}
	transport := &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DialContext:       u.Dial,
		TLSClientConfig:   &tls.Config{RootCAs: u.RootCAs, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // no redirects: the answer itself is enough
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
