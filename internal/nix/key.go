package nix

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// PublicKey verifies what a cache signed. Its text is "name:base64".
type PublicKey struct {
	Name string
	key  ed25519.PublicKey
}

// SecretKey signs paths for a cache. Its text is "name:base64".
type SecretKey struct {
	Name string
	key  ed25519.PrivateKey
}

// GenerateKey makes a new key. By custom the name is the cache's host name, a
// dash and a number.
func GenerateKey(name string) (SecretKey, error) {
	if err := checkKeyName(name); err != nil {
		return SecretKey{}, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return SecretKey{Name: name, key: key}, err
}

// ParsePublicKey reads one entry of trusted-public-keys.
func ParsePublicKey(text string) (PublicKey, error) {
	name, b, err := splitKey(text, ed25519.PublicKeySize)
	if err != nil {
		return PublicKey{}, fmt.Errorf("cache key %.80q: %w", text, err)
	}
	return PublicKey{Name: name, key: b}, nil
}

// ParsePublicKeys reads several.
func ParsePublicKeys(texts []string) ([]PublicKey, error) {
	keys := make([]PublicKey, 0, len(texts))
	for _, text := range texts {
		key, err := ParsePublicKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// ParseSecretKey reads the file that nix-store --generate-binary-cache-key wrote.
// Its errors do not quote it.
func ParseSecretKey(text string) (SecretKey, error) {
	name, b, err := splitKey(text, ed25519.PrivateKeySize)
	if err != nil {
		return SecretKey{}, fmt.Errorf("secret cache key: %w", err)
	}
	return SecretKey{Name: name, key: b}, nil
}

// Public is the key that verifies what this one signs.
func (k SecretKey) Public() PublicKey {
	return PublicKey{Name: k.Name, key: k.key.Public().(ed25519.PublicKey)}
}

func (k SecretKey) sign(msg string) string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(ed25519.Sign(k.key, []byte(msg)))
}

// Text is what ParseSecretKey reads: a secret.
func (k SecretKey) Text() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.key)
}

func (k PublicKey) String() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.key)
}

// verifyAny tells whether one of the signatures is one of the keys'.
func verifyAny(msg string, sigs []string, keys []PublicKey) bool {
	for _, sig := range sigs {
		name, b, err := splitKey(sig, ed25519.SignatureSize)
		if err != nil {
			continue
		}
		for _, key := range keys {
			if key.Name == name && ed25519.Verify(key.key, []byte(msg), b) {
				return true
			}
		}
	}
	return false
}

// splitKey reads "name:base64", the form of keys and signatures alike.
func splitKey(text string, size int) (string, []byte, error) {
	name, digits, _ := strings.Cut(strings.TrimSpace(text), ":")
	if err := checkKeyName(name); err != nil {
		return "", nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(digits)
	if err != nil {
		return "", nil, fmt.Errorf("want name:base64: %w", err)
	}
	if len(b) != size {
		return "", nil, fmt.Errorf("want %d bytes, have %d", size, len(b))
	}
	return name, b, nil
}

func checkKeyName(name string) error {
	if name == "" || strings.ContainsAny(name, ": \t\r\n") {
		return fmt.Errorf("%.80q is no name of a cache key", name)
	}
	return nil
}
