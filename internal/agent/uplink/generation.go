package uplink

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"nixfleet/internal/identity"
)

// generation is an HTTP client with the files that it was made from. When a file
// changes the next request makes a new generation, with new connections; those of
// the old one end when their requests have.
type generation struct {
	client    *http.Client
	transport *http.Transport
	files     []fileState
}

func (g *generation) close() { g.transport.CloseIdleConnections() }

// fileState tells whether a file is still the one that was read.
type fileState struct {
	path string
	info os.FileInfo // nil: it was not there
}

func stateOf(path string) fileState {
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	return fileState{path: path, info: info}
}

func (s fileState) changed() bool {
	now := stateOf(s.path)
	if s.info == nil || now.info == nil {
		return s.info != now.info
	}
	return !os.SameFile(s.info, now.info) || s.info.Size() != now.info.Size() || !s.info.ModTime().Equal(now.info.ModTime())
}

// generation gives the current generation: the last one, as long as its files
// are what they were.
func (c *Client) generation() (*generation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.current; g != nil {
		fresh := true
		for _, f := range g.files {
			fresh = fresh && !f.changed()
		}
		if fresh {
			return g, nil
		}
		g.close()
		c.current = nil
	}
	g, err := c.newGeneration()
	if err != nil {
		return nil, err
	}
	c.current = g
	return g, nil
}

// drop forgets a generation; nil means whichever is the current one.
func (c *Client) drop(g *generation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil || g != nil && g != c.current {
		return
	}
	c.current.close()
	c.current = nil
}

func (c *Client) newGeneration() (*generation, error) {
	g := &generation{}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.cfg.CACertFile != "" {
		g.files = append(g.files, stateOf(c.cfg.CACertFile))
		raw, err := os.ReadFile(c.cfg.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("read the control plane's roots: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("read the control plane's roots: no certificate in %s", c.cfg.CACertFile)
		}
	}
	g.files = append(g.files, stateOf(c.cfg.CertFile), stateOf(c.cfg.KeyFile))
	cert, err := loadCertificate(c.cfg.CertFile, c.cfg.KeyFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// Not enrolled: the requests of enrolment need no certificate.
	case err != nil:
		return nil, err
	default:
		// By the callback, which sends it whatever the server hints at: also an expired
		// one has to arrive there, to be renewed.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	g.transport = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           c.cfg.Dial,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   ConnectTimeout,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   1,
		IdleConnTimeout:       5 * time.Minute,
		ExpectContinueTimeout: time.Second,
	}
	g.client = &http.Client{
		Transport:     g.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return g, nil
}

// loadCertificate reads a certificate chain and its key.
func loadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	raw, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("read the client's certificate: %w", err)
	}
	cert := &tls.Certificate{}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if len(cert.Certificate) == 0 {
		return nil, fmt.Errorf("read the client's certificate: none in %s", certFile)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return nil, fmt.Errorf("read the client's certificate %s: %w", certFile, err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the client's key: %w", err)
	}
	if cert.PrivateKey, err = identity.ParseHostKey(key); err != nil {
		return nil, fmt.Errorf("read the client's key %s: %w", keyFile, err)
	}
	return cert, nil
}

// Certificate reads the client's certificate as it is on disk.
func (c *Client) Certificate() (*x509.Certificate, error) {
	cert, err := loadCertificate(c.cfg.CertFile, c.cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	return cert.Leaf, nil
}
