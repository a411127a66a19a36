package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// remedy is the one way out of every wrong host key.
const remedy = "nixfleet needs an ed25519 key without a passphrase; make one with: " +
	"ssh-keygen -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"

// ErrHostKey is what every error about a host's private key wraps. The message
// says which key is needed and how to make one.
var ErrHostKey = errors.New("not a usable host key")

// LoadHostKey reads and parses a host key file.
func LoadHostKey(file string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	key, err := ParseHostKey(data)
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w", file, err)
	}
	return key, nil
}

// ParseHostKey reads an unencrypted ed25519 private key, in OpenSSH's format or
// as PEM PKCS#8. The error for any other key says which one is needed.
func ParseHostKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		if isPublicLine(data) {
			return nil, badHostKey("this is the public half (the .pub file), the private key is needed")
		}
		return nil, badHostKey("no PEM block in it")
	}
	switch block.Type {
	case "ENCRYPTED PRIVATE KEY":
		return nil, badHostKey("it is encrypted")
	case "PUBLIC KEY":
		return nil, badHostKey("this is a public key, the private one is needed")
	case "CERTIFICATE":
		return nil, badHostKey("this is a certificate, the private key is needed")
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, badHostKey("it is encrypted")
	}
	if err != nil {
		return nil, badHostKey(err.Error())
	}
	switch key := raw.(type) {
	case ed25519.PrivateKey:
		return whole(key)
	case *ed25519.PrivateKey:
		return whole(*key)
	case *rsa.PrivateKey:
		return nil, badHostKey("it is an RSA key")
	case *ecdsa.PrivateKey:
		return nil, badHostKey("it is an ECDSA key")
	default:
		return nil, badHostKey(fmt.Sprintf("it is a %T", raw))
	}
}

// whole refuses a key with another one's public half, which OpenSSH's format can
// hold: what it signs would verify with neither.
func whole(key ed25519.PrivateKey) (ed25519.PrivateKey, error) {
	if !ed25519.NewKeyFromSeed(key.Seed()).Equal(key) {
		return nil, badHostKey("its public half belongs to another key")
	}
	return key, nil
}

func badHostKey(why string) error { return fmt.Errorf("%w: %s. %s", ErrHostKey, why, remedy) }

func isPublicLine(data []byte) bool {
	_, _, _, _, err := ssh.ParseAuthorizedKey(data)
	return err == nil
}

// ParsePublicKey reads the line "ssh-ed25519 AAAA… comment" that a fleet declares
// a host with.
func ParsePublicKey(line string) (ed25519.PublicKey, error) {
	if strings.Contains(line, "PRIVATE KEY-----") {
		return nil, errors.New("host public key: this is a private key, which should not leave its host; give the public half, the content of the .pub file beside it")
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case len(strings.TrimSpace(line)) == 0:
		return nil, errors.New("host public key: it is empty, want \"ssh-ed25519 AAAA…\", the content of ssh_host_ed25519_key.pub")
	case err != nil:
		return nil, fmt.Errorf("host public key: want \"ssh-ed25519 AAAA…\", the content of ssh_host_ed25519_key.pub: %w", err)
	case len(options) > 0 || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("host public key: one line \"ssh-ed25519 AAAA…\" and nothing else is allowed")
	case key.Type() != ssh.KeyAlgoED25519:
		return nil, fmt.Errorf("host public key: it is %s, only ssh-ed25519 is allowed: take /etc/ssh/ssh_host_ed25519_key.pub of the host", key.Type())
	}
	public, ok := key.(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("host public key: not an ed25519 key")
	}
	return public, nil
}

// FormatPublicKey writes a key as ParsePublicKey reads it. The comment may be
// empty.
func FormatPublicKey(key ed25519.PublicKey, comment string) string {
	wrapped, err := ssh.NewPublicKey(key)
	if err != nil {
		panic("identity: an ed25519 key has 32 bytes: " + err.Error())
	}
	line := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(wrapped)))
	if comment != "" {
		line += " " + comment
	}
	return line
}

// Fingerprint is the base64 SHA-256 of the raw 32 bytes of a host's public key:
// the form of tokens, revocations and the audit log. It is not OpenSSH's.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// FingerprintOf is the fingerprint of any key that a certificate may carry: of
// an ed25519 key as Fingerprint, of another over its PKIX form.
func FingerprintOf(key any) (string, error) {
	if host, ok := key.(ed25519.PublicKey); ok {
		return Fingerprint(host), nil
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("fingerprint: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}
