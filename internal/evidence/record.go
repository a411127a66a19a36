package evidence

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// Purpose is what every record says that its signature is for.
const Purpose = "nixfleet-event-v1"

// Genesis is the prev of the first record of a chain.
var Genesis = strings.Repeat("0", 64)

// Why a single record is not good.
var (
	ErrMalformed = errors.New("not an evidence record")
	ErrSignature = errors.New("the host's key did not sign this record")
)

// Record is what is signed for one event.
type Record struct {
	Hostname     string          `json:"hostname"`
	RolloutID    string          `json:"rolloutId"`
	Event        json.RawMessage `json:"event"`
	BootID       string          `json:"bootId"`
	AgentVersion string          `json:"agentVersion"`
	RecordedAt   string          `json:"recordedAt"` // RFC 3339 UTC, as text because it is signed as text
	Prev         string          `json:"prev"`       // hash of the record before, or Genesis
}

// Of is the record inside an envelope.
func Of(e wire.Envelope) Record {
	return Record{
		Hostname:     e.Hostname,
		RolloutID:    e.RolloutID,
		Event:        e.Event,
		BootID:       e.BootID,
		AgentVersion: e.AgentVersion,
		RecordedAt:   e.RecordedAt,
		Prev:         e.Prev,
	}
}

// Canonical is the record's RFC 8785 form, purpose included: the bytes that are
// hashed and signed.
func (r Record) Canonical() ([]byte, error) {
	raw, err := json.Marshal(struct {
		Purpose string `json:"purpose"`
		Record
	}{Purpose, r})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	canonical, err := trust.Canonical(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return canonical, nil
}

// Hash is the hash of an envelope's record, which the next one of its chain names.
func Hash(e wire.Envelope) (string, error) {
	canonical, err := Of(e).Canonical()
	if err != nil {
		return "", err
	}
	return trust.Sum(canonical), nil
}

// Seal signs a record with the host's key. It returns the envelope to send and
// the record's hash, which is the prev of the next one.
func Seal(r Record, key ed25519.PrivateKey) (e wire.Envelope, hash string, err error) {
	canonical, err := r.Canonical()
	if err != nil {
		return wire.Envelope{}, "", fmt.Errorf("seal: %w", err)
	}
	return wire.Envelope{
		Hostname:     r.Hostname,
		RolloutID:    r.RolloutID,
		Event:        r.Event,
		Signature:    hex.EncodeToString(ed25519.Sign(key, canonical)),
		BootID:       r.BootID,
		AgentVersion: r.AgentVersion,
		RecordedAt:   r.RecordedAt,
		Prev:         r.Prev,
	}, trust.Sum(canonical), nil
}

// Verify checks one record's signature and returns its hash. The hash is good
// with ErrSignature too: it is that of the bytes, whoever signed them.
func Verify(e wire.Envelope, key ed25519.PublicKey) (hash string, err error) {
	canonical, err := Of(e).Canonical()
	if err != nil {
		return "", err
	}
	hash = trust.Sum(canonical)
	signature, err := hex.DecodeString(e.Signature)
	if err != nil {
		return hash, fmt.Errorf("%w: the signature is not hex: %w", ErrSignature, err)
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, canonical, signature) {
		return hash, ErrSignature
	}
	return hash, nil
}
