package issuer

import (
	"fmt"
	"io"
	"os"

	"nixfleet/internal/identity"
)

// maxKey is far more than any private key has.
const maxKey = 64 << 10

// Load reads an authority whose key lies in a file that only its owner may read.
// For a key that lies elsewhere, identity.LoadCA takes whatever signs with it.
func Load(certFile, keyFile string) (identity.CA, error) {
	keyPEM, err := readSecret(keyFile)
	if err != nil {
		return identity.CA{}, err
	}
	signer, err := identity.ParseKey(keyPEM)
	if err != nil {
		return identity.CA{}, fmt.Errorf("CA key %s: %w", keyFile, err)
	}
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return identity.CA{}, fmt.Errorf("CA certificate: %w", err)
	}
	ca, err := identity.LoadCA(certPEM, signer)
	if err != nil {
		return identity.CA{}, fmt.Errorf("CA certificate %s: %w", certFile, err)
	}
	return ca, nil
}

// readSecret looks at the very file that it reads, not at what has its name.
func readSecret(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("CA key %s is not a regular file: %s", name, info.Mode())
	}
	if err := identity.CheckPrivateMode(name, info.Mode()); err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, fmt.Errorf("CA key %s: %w", name, err)
	}
	return content, nil
}
