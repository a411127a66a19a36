package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Signer makes the raw signatures that Key.Verify checks.
type Signer interface {
	Sign(msg []byte) ([]byte, error)
	Public() Key
}

// SignDocument signs the canonical form of a document.
func SignDocument(doc []byte, s Signer) ([]byte, error) {
	canonical, err := canonicalDocument(doc)
	if err != nil {
		return nil, err
	}
	return s.Sign(canonical)
}

// NewSigner makes a signer of an ed25519 or a P-256 key.
func NewSigner(private any) (Signer, error) {
	switch k := private.(type) {
	case ed25519.PrivateKey:
		return edSigner{k}, nil
	case *ed25519.PrivateKey: // as the OpenSSH format gives it
		return edSigner{*k}, nil
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("the key is on the curve %s; only P-256 is used", k.Curve.Params().Name)
		}
		return p256Signer{k}, nil
	}
	return nil, fmt.Errorf("the key is a %T; ed25519 and P-256 are used", private)
}

// LoadSigner reads a private key, which it knows by its content: PEM (PRIVATE
// KEY, EC PRIVATE KEY, OPENSSH PRIVATE KEY), or a raw ed25519 key, 32 bytes of
// seed, or 64 of seed and public key. Text is never taken for a raw key.
func LoadSigner(content []byte) (Signer, error) {
	if bytes.Contains(content, []byte("-----BEGIN ")) {
		return pemSigner(content)
	}
	if isText(content) {
		return nil, errors.New("the key file holds text, but no PEM block")
	}
	switch len(content) {
	case ed25519.SeedSize:
		return edSigner{ed25519.NewKeyFromSeed(content)}, nil
	case ed25519.PrivateKeySize:
		k := ed25519.NewKeyFromSeed(content[:ed25519.SeedSize])
		if !bytes.Equal(k, content) {
			return nil, errors.New("the key file's 64 bytes are not a seed and its public key")
		}
		return edSigner{k}, nil
	}
	return nil, fmt.Errorf("the key file's %d bytes are neither PEM nor a raw ed25519 key of 32 or 64 bytes", len(content))
}

func pemSigner(content []byte) (Signer, error) {
	var found Signer
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		private, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
		if private == nil {
			continue
		}
		if found != nil {
			return nil, errors.New("the key file holds more than one private key")
		}
		if found, err = NewSigner(private); err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
	}
	if found == nil {
		return nil, errors.New("the key file holds no private key that can be read")
	}
	return found, nil
}

// parseBlock is the private key of a PEM block; nil when the block is none.
func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted; give it decrypted")
		}
		return x509.ParseECPrivateKey(block.Bytes)
	case "OPENSSH PRIVATE KEY":
		private, err := ssh.ParseRawPrivateKey(pem.EncodeToMemory(block))
		if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
			return nil, errors.New("the key is encrypted; give it decrypted")
		}
		return private, err
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted; give it decrypted")
	case "RSA PRIVATE KEY", "DSA PRIVATE KEY":
		return nil, errors.New("ed25519 and P-256 are used")
	}
	return nil, nil
}

// isText tells whether there are only printable characters and line ends: no
// random key looks like that.
func isText(content []byte) bool {
	for _, b := range content {
		if (b < ' ' || b > '~') && b != '\n' && b != '\r' && b != '\t' {
			return false
		}
	}
	return true
}

type edSigner struct{ key ed25519.PrivateKey }

func (s edSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func (s edSigner) Public() Key {
	return Key{Algorithm: Ed25519, Public: s.key.Public().(ed25519.PublicKey)}
}

type p256Signer struct{ key *ecdsa.PrivateKey }

func (s p256Signer) Sign(msg []byte) ([]byte, error) {
	digest := sha256.Sum256(msg)
	r, t, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return nil, err
	}
	sig := make([]byte, signatureSize)
	r.FillBytes(sig[:32])
	t.FillBytes(sig[32:])
	return sig, nil
}

func (s p256Signer) Public() Key {
	point, err := s.key.PublicKey.Bytes()
	if err != nil { // a key that was parsed lies on its curve
		panic(err)
	}
	return Key{Algorithm: ECDSAP256, Public: point[1:]}
}
