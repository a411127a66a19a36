package trust

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"time"
)

// The algorithms. A key brings its own; documents have no say.
const (
	Ed25519   = "ed25519"
	ECDSAP256 = "ecdsa-p256"
)

const (
	signatureSize = 64
	p256Size      = 64 // X‖Y
)

// Key is a public key as trust roots pin it.
type Key struct {
	Algorithm string `json:"algorithm"`
	Public    []byte `json:"public"` // ed25519: 32 bytes; ecdsa-p256: X‖Y, 64 bytes
}

// ID names the key so that it can be found in trust.json: "algorithm:base64".
func (k Key) ID() string {
	return k.Algorithm + ":" + base64.StdEncoding.EncodeToString(k.Public)
}

// Verify tells whether the key made the raw signature of msg. Of ecdsa-p256,
// which signs the SHA-256 of msg as R‖S, high S is good too: TPMs make it.
func (k Key) Verify(msg, sig []byte) bool {
	if len(sig) != signatureSize {
		return false
	}
	switch k.Algorithm {
	case Ed25519:
		return len(k.Public) == ed25519.PublicKeySize && ed25519.Verify(k.Public, msg, sig)
	case ECDSAP256:
		public, err := k.p256()
		if err != nil {
			return false
		}
		digest := sha256.Sum256(msg)
		r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		return ecdsa.Verify(public, digest[:], r, s)
	}
	return false
}

// check tells what is wrong with the key.
func (k Key) check() error {
	switch k.Algorithm {
	case Ed25519:
		if len(k.Public) != ed25519.PublicKeySize {
			return fmt.Errorf("an ed25519 key has %d bytes, not %d", ed25519.PublicKeySize, len(k.Public))
		}
	case ECDSAP256:
		if len(k.Public) != p256Size {
			return fmt.Errorf("an ecdsa-p256 key has %d bytes (X and Y), not %d", p256Size, len(k.Public))
		}
		if _, err := k.p256(); err != nil {
			return fmt.Errorf("not a point of P-256: %w", err)
		}
	default:
		return fmt.Errorf("algorithm %.40q is neither %s nor %s", k.Algorithm, Ed25519, ECDSAP256)
	}
	return nil
}

func (k Key) p256() (*ecdsa.PublicKey, error) {
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, k.Public...))
}

// Slot is the keys of one role, so that one can follow another without a moment
// in which neither is valid.
type Slot struct {
	Current, Previous, Successor *Key
	RetireAt                     time.Time // of the successor; zero: it is valid without end
	RejectBefore                 time.Time // documents signed earlier are refused; zero: none
}

// ValidAt are the keys that count at t, in the order in which they are tried.
func (s Slot) ValidAt(t time.Time) []Key {
	var keys []Key
	for _, k := range []*Key{s.Current, s.Previous} {
		if k != nil {
			keys = append(keys, *k)
		}
	}
	if s.Successor != nil && (s.RetireAt.IsZero() || t.Before(s.RetireAt)) {
		keys = append(keys, *s.Successor)
	}
	return keys
}

// Verify is the first key valid at now that made the signature.
func (s Slot) Verify(msg, sig []byte, now time.Time) (Key, bool) {
	for _, k := range s.ValidAt(now) {
		if k.Verify(msg, sig) {
			return k, true
		}
	}
	return Key{}, false
}
