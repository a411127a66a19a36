package controlplane

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"nixfleet/internal/identity"
)

// issueFunc makes a certificate for a host's key.
type issueFunc func(host string, key ed25519.PublicKey, requester string) (*x509.Certificate, error)

// authority is the issuer of agents' certificates; nil when none is configured.
func authority(c Config) (issueFunc, error) {
	if c.CACert == "" {
		return nil, nil
	}
	certPEM, err := os.ReadFile(c.CACert)
	if err != nil {
		return nil, fmt.Errorf("--ca-cert: %w", err)
	}
	info, err := os.Stat(c.CAKey)
	if err != nil {
		return nil, fmt.Errorf("--ca-key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("--ca-key %s: mode %04o lets others read it: chmod 600 %s", c.CAKey, mode, c.CAKey)
	}
	keyPEM, err := os.ReadFile(c.CAKey)
	if err != nil {
		return nil, fmt.Errorf("--ca-key: %w", err)
	}
	signer, err := identity.ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("--ca-key %s: %w", c.CAKey, err)
	}
	ca, err := identity.LoadCA(certPEM, signer)
	if err != nil {
		return nil, fmt.Errorf("--ca-cert %s: %w", c.CACert, err)
	}
	log := c.IssuanceLog
	if log == "" {
		file, err := databaseFile(c.DB)
		if err != nil {
			return nil, err
		}
		log = filepath.Join(filepath.Dir(file), "issuances.jsonl")
	}
	audit := &issuanceLog{file: log}
	return func(host string, key ed25519.PublicKey, requester string) (*x509.Certificate, error) {
		template, err := identity.AgentTemplate(host, c.AgentCertSuffix, time.Now(), c.AgentCertValidity)
		if err != nil {
			return nil, err
		}
		cert, err := ca.Issue(template, key)
		if err != nil {
			return nil, err
		}
		return cert, audit.append(cert, key, requester)
	}, nil
}

// issuanceLog has one JSON line for each certificate, apart from the database.
type issuanceLog struct {
	file string
	mu   sync.Mutex
}

func (l *issuanceLog) append(cert *x509.Certificate, key ed25519.PublicKey, requester string) error {
	line, err := json.Marshal(struct {
		At             time.Time `json:"at"`
		Serial         string    `json:"serial"`
		KeyFingerprint string    `json:"keyFingerprint"`
		Role           string    `json:"role"`
		Name           string    `json:"name"`
		Requester      string    `json:"requester"`
	}{cert.NotBefore, cert.SerialNumber.Text(16), identity.Fingerprint(key), string(identity.Agent), cert.Subject.CommonName, requester})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log of certificates: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("log of certificates: %w", err)
	}
	return nil
}
