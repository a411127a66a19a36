package controlplane

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// keyPair is the server's certificate and key, read again when they change.
type keyPair struct {
	certFile, keyFile string

	mu   sync.Mutex
	cert *tls.Certificate
	read [2]time.Time // modification times of the files that cert was read from
}

func loadKeyPair(certFile, keyFile string) (*keyPair, error) {
	p := &keyPair{certFile: certFile, keyFile: keyFile}
	times, err := p.times()
	if err != nil {
		return nil, err
	}
	if err := p.load(times); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *keyPair) times() (t [2]time.Time, err error) {
	for i, file := range []string{p.certFile, p.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return t, fmt.Errorf("server certificate: %w", err)
		}
		t[i] = info.ModTime()
	}
	return t, nil
}

func (p *keyPair) load(times [2]time.Time) error {
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		return fmt.Errorf("server certificate %s with key %s: %w", p.certFile, p.keyFile, err)
	}
	p.cert, p.read = &cert, times
	return nil
}

// get is tls.Config.GetCertificate. While new files are half written the old
// certificate serves on.
func (p *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	times, err := p.times()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && times != p.read {
		_ = p.load(times) // tried again with the next connection
	}
	return p.cert, nil
}
