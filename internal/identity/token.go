package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"nixfleet/internal/trust"
)

const (
	tokenVersion = 1
	// A token minted on a machine whose clock is a little ahead is good at once.
	tokenSkew = time.Minute
	maxToken  = 16 << 10
)

// ErrTokenKey: a token is not made with this key.
var ErrTokenKey = errors.New("bootstrap tokens are signed with an ed25519 key")

// Why a token is not good. The first three are found before anything is said to
// somebody who holds no signed token.
var (
	ErrTokenMalformed = errors.New("not a bootstrap token")
	ErrTokenVersion   = errors.New("bootstrap token of another version")
	ErrTokenSignature = errors.New("bootstrap token is not signed by the organisation's root key")
	ErrTokenNotYet    = errors.New("bootstrap token is not valid yet")
	ErrTokenExpired   = errors.New("bootstrap token has expired")
	ErrTokenRejected  = errors.New("bootstrap token is older than the root key's rejectBefore")
)

// Claims are what a bootstrap token allows: one host with one key, once, for a
// while.
type Claims struct {
	Hostname                  string    `json:"hostname"`
	ExpectedPubkeyFingerprint string    `json:"expectedPubkeyFingerprint"` // Fingerprint of the host's key
	IssuedAt                  time.Time `json:"issuedAt"`
	ExpiresAt                 time.Time `json:"expiresAt"`
	Nonce                     string    `json:"nonce"` // NewNonce
}

// Token is a parsed and not yet verified bootstrap token.
type Token struct {
	Claims    Claims
	version   int
	canonical []byte // of the claims as received
	signature []byte
}

type tokenFile struct {
	Version   int             `json:"version"`
	Claims    json.RawMessage `json:"claims"`
	Signature string          `json:"signature"`
}

// NewNonce returns 16 random bytes in hex.
func NewNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it ends the program when the system has no randomness
	return hex.EncodeToString(b[:])
}

// MintToken signs claims with the organisation's root key and returns the token
// as JSON. Times are cut to whole seconds.
func MintToken(c Claims, orgRoot trust.Signer) ([]byte, error) {
	c.IssuedAt = c.IssuedAt.UTC().Truncate(time.Second)
	c.ExpiresAt = c.ExpiresAt.UTC().Truncate(time.Second)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("mint token: %w", err)
	}
	if algorithm := orgRoot.Public().Algorithm; algorithm != trust.Ed25519 {
		return nil, fmt.Errorf("mint token: %w, this one is %s; make one with: openssl genpkey -algorithm ed25519 -out FILE", ErrTokenKey, algorithm)
	}
	canonical, err := trust.Encode(c)
	if err != nil {
		return nil, fmt.Errorf("mint token: %w", err)
	}
	signature, err := orgRoot.Sign(canonical)
	if err != nil {
		return nil, fmt.Errorf("mint token: %w", err)
	}
	return json.MarshalIndent(tokenFile{tokenVersion, canonical, base64.StdEncoding.EncodeToString(signature)}, "", "  ")
}

// ParseToken reads a token. Nothing in it may be believed before VerifyToken.
func ParseToken(data []byte) (Token, error) {
	if len(data) > maxToken {
		return Token{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTokenMalformed, len(data), maxToken)
	}
	var file tokenFile
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&file); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrTokenMalformed, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Token{}, fmt.Errorf("%w: something follows it", ErrTokenMalformed)
	}
	t := Token{version: file.Version}
	var err error
	if t.canonical, err = trust.Canonical(file.Claims); err != nil {
		return Token{}, fmt.Errorf("%w: claims: %w", ErrTokenMalformed, err)
	}
	if err := json.Unmarshal(t.canonical, &t.Claims); err != nil {
		return Token{}, fmt.Errorf("%w: claims: %w", ErrTokenMalformed, err)
	}
	if t.signature, err = base64.StdEncoding.DecodeString(file.Signature); err != nil {
		return Token{}, fmt.Errorf("%w: signature: %w", ErrTokenMalformed, err)
	}
	// The claims of another version may mean something else.
	if t.version == tokenVersion {
		if err := t.Claims.check(); err != nil {
			return Token{}, fmt.Errorf("%w: %w", ErrTokenMalformed, err)
		}
	}
	return t, nil
}

// check tells whether the claims are complete and of the right form.
func (c Claims) check() error {
	if err := CheckHostName(c.Hostname); err != nil {
		return err
	}
	if sum, err := base64.StdEncoding.DecodeString(c.ExpectedPubkeyFingerprint); err != nil || len(sum) != 32 {
		return fmt.Errorf("expectedPubkeyFingerprint %q is not the base64 SHA-256 of a key", c.ExpectedPubkeyFingerprint)
	}
	if nonce, err := hex.DecodeString(c.Nonce); err != nil || len(nonce) != 16 {
		return fmt.Errorf("nonce %q is not 16 bytes in hex", c.Nonce)
	}
	if c.IssuedAt.IsZero() || !c.ExpiresAt.After(c.IssuedAt) {
		return fmt.Errorf("it expires at %s and was issued at %s", stamp(c.ExpiresAt), stamp(c.IssuedAt))
	}
	return nil
}

// AuthenticToken checks version and signature, and returns the claims of a token
// whether it is time for it or not: enough to say whose it is, and for nothing
// that it would allow.
func AuthenticToken(t Token, orgRoot trust.Slot, now time.Time) (Claims, error) {
	if t.version != tokenVersion {
		return Claims{}, fmt.Errorf("%w: %d, this program knows %d", ErrTokenVersion, t.version, tokenVersion)
	}
	if _, ok := orgRoot.Verify(t.canonical, t.signature, now); !ok {
		return Claims{}, ErrTokenSignature
	}
	if c := t.Claims; c.IssuedAt.Before(orgRoot.RejectBefore) {
		return Claims{}, fmt.Errorf("%w: issued at %s, the limit is %s", ErrTokenRejected, stamp(c.IssuedAt), stamp(orgRoot.RejectBefore))
	}
	return t.Claims, nil
}

// VerifyToken checks version and signature, then time, and returns the claims.
// Whether the nonce is allowed, and the key the host's, is the caller's to check.
func VerifyToken(t Token, orgRoot trust.Slot, now time.Time) (Claims, error) {
	c, err := AuthenticToken(t, orgRoot, now)
	switch {
	case err != nil:
		return Claims{}, err
	case c.IssuedAt.Sub(now) > tokenSkew:
		return Claims{}, fmt.Errorf("%w: issued at %s, it is %s", ErrTokenNotYet, stamp(c.IssuedAt), stamp(now))
	case !now.Before(c.ExpiresAt):
		return Claims{}, fmt.Errorf("%w: at %s, it is %s", ErrTokenExpired, stamp(c.ExpiresAt), stamp(now))
	}
	return c, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
