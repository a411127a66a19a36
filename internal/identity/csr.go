package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	csrBlock  = "CERTIFICATE REQUEST"
	certBlock = "CERTIFICATE"
	maxCSR    = 16 << 10
)

// ErrCSR is what every error about a certificate request wraps.
var ErrCSR = errors.New("bad certificate request")

// CSR is a request whose proof of possession was checked: whoever made it holds
// Key. Nothing else in the request counts.
type CSR struct {
	MachineID string
	Key       ed25519.PublicKey
}

// NewCSR makes a PEM PKCS#10 request for machineID, signed with the host key.
func NewCSR(machineID string, key ed25519.PrivateKey) ([]byte, error) {
	if err := CheckHostName(machineID); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: machineID}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: csrBlock, Bytes: der}), nil
}

// ParseCSR reads one PEM request and checks its signature, its key type and the
// form of its name.
func ParseCSR(data []byte) (CSR, error) {
	if len(data) > maxCSR {
		return CSR{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrCSR, len(data), maxCSR)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return CSR{}, fmt.Errorf("%w: no PEM block in it", ErrCSR)
	case block.Type != csrBlock:
		return CSR{}, fmt.Errorf("%w: the PEM block is a %s", ErrCSR, block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return CSR{}, fmt.Errorf("%w: something follows it", ErrCSR)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return CSR{}, fmt.Errorf("%w: %w", ErrCSR, err)
	}
	key, ok := request.PublicKey.(ed25519.PublicKey)
	if !ok {
		return CSR{}, fmt.Errorf("%w: its key is %s, the host's SSH ed25519 key is needed", ErrCSR, request.PublicKeyAlgorithm)
	}
	if err := request.CheckSignature(); err != nil {
		return CSR{}, fmt.Errorf("%w: whoever made it does not hold the key: %w", ErrCSR, err)
	}
	if err := CheckHostName(request.Subject.CommonName); err != nil {
		return CSR{}, fmt.Errorf("%w: common name: %w", ErrCSR, err)
	}
	return CSR{MachineID: request.Subject.CommonName, Key: key}, nil
}
