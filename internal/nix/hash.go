package nix

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Hash is a SHA-256, the only hash that Nix signs.
type Hash [sha256.Size]byte

// String is the hash as narinfo files and fingerprints have it.
func (h Hash) String() string { return "sha256:" + EncodeBase32(h[:]) }

// ParseHash reads a hash in any of the forms that Nix writes: "sha256:" with
// base 32 or base 16, and "sha256-" with base 64 (SRI).
func ParseHash(s string) (Hash, error) {
	var h Hash
	var b []byte
	var err error
	if digits, ok := strings.CutPrefix(s, "sha256-"); ok {
		b, err = base64.StdEncoding.Strict().DecodeString(digits)
	} else if digits, ok := strings.CutPrefix(s, "sha256:"); !ok {
		return h, fmt.Errorf("%.80q is no SHA-256", s)
	} else if len(digits) == hex.EncodedLen(len(h)) {
		b, err = hex.DecodeString(digits)
	} else {
		b, err = DecodeBase32(digits)
	}
	if err != nil {
		return h, fmt.Errorf("%.80q is no SHA-256: %w", s, err)
	}
	if len(b) != len(h) {
		return h, fmt.Errorf("%.80q is no SHA-256: %d bytes", s, len(b))
	}
	return Hash(b), nil
}
