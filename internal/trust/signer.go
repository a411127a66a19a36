package trust

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

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
		if !ed25519.NewKeyFromSeed(k.Seed()).Equal(k) { // OpenSSH's format can hold such a pair
			return nil, errors.New("its public half belongs to another key")
		}
		return edSigner{k}, nil
	case *ed25519.PrivateKey: // as the OpenSSH format gives it
		return NewSigner(*k)
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("the key is on the curve %s; only P-256 is used", k.Curve.Params().Name)
		}
		return p256Signer{k}, nil
	}
	return nil, fmt.Errorf("the key is %s; ed25519 and P-256 are used", kindOf(private))
}

// LoadSigner reads a private key, which it knows by its content: PEM (PRIVATE
// KEY, EC PRIVATE KEY, OPENSSH PRIVATE KEY), or an ed25519 key alone, 32 bytes of
// seed, or 64 of seed and public key, as they are or in base64. The error says
// what the content is instead, and what to do.
//
// Nothing tells 32 bytes of seed from 32 bytes of a public key: whoever signs
// with a key should see to it that its public half is one that is pinned.
func LoadSigner(content []byte) (Signer, error) {
	switch {
	case len(bytes.TrimSpace(content)) == 0:
		return nil, fmt.Errorf("it is empty; %s", makeKey)
	case bytes.Contains(content, []byte("-----BEGIN ")):
		return pemSigner(content)
	case isText(content):
		return textSigner(string(bytes.TrimSpace(content)))
	}
	return rawSigner(content)
}

// What to do about a key that is of no use.
const (
	makeKey    = "make a key with: openssl genpkey -algorithm ed25519 -out FILE"
	decryptKey = "it is encrypted; decrypt a copy with: openssl pkey -in FILE, or, of OpenSSH's: ssh-keygen -p -N '' -f FILE"
	publicHalf = "the private key is needed, which belongs to it"
)

func pemSigner(content []byte) (Signer, error) {
	if !bytes.Contains(content, []byte("-----END ")) {
		return nil, errors.New("it is cut off: the PEM block has no end; copy the file again")
	}
	var found Signer
	var others []string
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		private, err := parseBlock(block)
		if err != nil {
			return nil, err
		}
		if private == nil {
			others = append(others, block.Type)
			continue
		}
		if found != nil {
			return nil, errors.New("it holds more than one private key; leave one of them")
		}
		if found, err = NewSigner(private); err != nil {
			return nil, fmt.Errorf("%w; %s", err, makeKey)
		}
	}
	switch {
	case found != nil:
		return found, nil
	case others != nil:
		return nil, fmt.Errorf("it holds a %s; %s", strings.Join(others, " and a "), publicHalf)
	}
	return nil, errors.New("it is damaged: its PEM block cannot be read; copy the file again")
}

// parseBlock is the private key of a PEM block; nil when the block is none.
func parseBlock(block *pem.Block) (private any, err error) {
	switch block.Type {
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New(decryptKey)
		}
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case "OPENSSH PRIVATE KEY":
		private, err = ssh.ParseRawPrivateKey(pem.EncodeToMemory(block))
		if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
			return nil, errors.New(decryptKey)
		}
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New(decryptKey)
	case "RSA PRIVATE KEY", "DSA PRIVATE KEY":
		return nil, fmt.Errorf("the key is an %s; ed25519 and P-256 are used; %s", block.Type, makeKey)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("its %s is damaged or of a kind that is not used (ed25519 and P-256 are): %w", block.Type, err)
	}
	return private, nil
}

// textSigner reads a key that is text and no PEM.
func textSigner(text string) (Signer, error) {
	if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err == nil {
		return nil, fmt.Errorf("it is a public key (%s); %s: the file without .pub", key.Type(), publicHalf)
	}
	if _, encoded, named := strings.Cut(text, ":"); named {
		if key, err := base64.StdEncoding.DecodeString(encoded); err == nil && (len(key) == ed25519.PublicKeySize || len(key) == ed25519.PrivateKeySize) {
			return nil, fmt.Errorf("it is a key of a Nix binary cache, which signs store paths and nothing else; %s", makeKey)
		}
	}
	if key, err := hex.DecodeString(text); err == nil {
		return nil, fmt.Errorf("it is %d bytes in hex; base64 is taken: xxd -r -p FILE | base64 -w 0", len(key))
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("it is text, but neither a PEM block nor base64; %s", makeKey)
	}
	return rawSigner(key)
}

// rawSigner reads an ed25519 key without any form around it.
func rawSigner(key []byte) (Signer, error) {
	switch len(key) {
	case ed25519.SeedSize:
		return edSigner{ed25519.NewKeyFromSeed(key)}, nil
	case ed25519.PrivateKeySize:
		k := ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])
		if !bytes.Equal(k, key) {
			return nil, errors.New("its 64 bytes are not a seed and its public key, in this order")
		}
		return edSigner{k}, nil
	}
	if n := len(bytes.TrimRight(key, "\r\n")); n == ed25519.SeedSize || n == ed25519.PrivateKeySize {
		return nil, fmt.Errorf("it is a raw key of %d bytes with a line end behind it; cut that off with: head -c %d FILE", n, n)
	}
	if _, err := x509.ParsePKCS8PrivateKey(key); err == nil {
		return nil, errors.New("it is DER; make PEM of it with: openssl pkey -inform DER -in FILE")
	}
	return nil, fmt.Errorf("its %d bytes are no key: a raw ed25519 key has 32 or 64", len(key))
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

// ParsePublic reads a public key: a PEM block PUBLIC KEY, or a line of OpenSSH.
func ParsePublic(content []byte) (Key, error) {
	if block, rest := pem.Decode(content); block != nil {
		if block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
			return Key{}, fmt.Errorf("it holds a %s; one PUBLIC KEY is needed", block.Type)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return Key{}, fmt.Errorf("its PUBLIC KEY is damaged: %w", err)
		}
		return publicKey(public)
	}
	line, _, _, rest, err := ssh.ParseAuthorizedKey(content)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errors.New("it is neither a PEM block PUBLIC KEY nor one line of OpenSSH")
	}
	public, ok := line.(ssh.CryptoPublicKey)
	if !ok {
		return Key{}, fmt.Errorf("the key is %s; ed25519 and P-256 are used", line.Type())
	}
	return publicKey(public.CryptoPublicKey())
}

func publicKey(public any) (Key, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return Key{Algorithm: Ed25519, Public: k}, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return Key{}, fmt.Errorf("the key is on the curve %s; only P-256 is used", k.Curve.Params().Name)
		}
		return p256Key(k), nil
	}
	return Key{}, fmt.Errorf("the key is %s; ed25519 and P-256 are used", kindOf(public))
}

// kindOf is a key's kind in the words of people.
func kindOf(key any) string {
	switch key.(type) {
	case *rsa.PrivateKey, *rsa.PublicKey:
		return "an RSA key"
	case *ecdh.PrivateKey, *ecdh.PublicKey:
		return "an X25519 key, which cannot sign"
	}
	return fmt.Sprintf("a %T", key)
}

func p256Key(k *ecdsa.PublicKey) Key {
	point, err := k.Bytes()
	if err != nil { // a key that was parsed lies on its curve
		panic(err)
	}
	return Key{Algorithm: ECDSAP256, Public: point[1:]}
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

func (s p256Signer) Public() Key { return p256Key(&s.key.PublicKey) }
