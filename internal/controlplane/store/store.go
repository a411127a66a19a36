// Package store keeps what the control plane must not forget.
//
// It promises that a batch is on disk, whole, when Commit returns nil, and that
// nothing of it is when Commit returns an error. Records are what happened, in
// one global order that the caller gives (LogID); rows are a checkpoint of what
// the records fold to, and may be dropped and rebuilt at any time.
//
// It needs one writer: the core is the only caller of Commit and Rebuild.
// Reading functions may be called from anywhere, and see committed data alone.
//
// It never interprets a record: what a record means is the core's business.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Store is one database. Sqlite implements it.
type Store interface {
	// Commit writes a batch in one transaction and makes it durable.
	Commit(ctx context.Context, b Batch) error
	// Rebuild replaces all rows by those that put is called with.
	Rebuild(ctx context.Context, write func(put func(Row) error) error) error

	// Rows calls each with every row.
	Rows(ctx context.Context, each func(Row) error) error
	// Head is the LogID of the newest record, 0 in an empty database.
	Head(ctx context.Context) (int64, error)
	// Replay calls each with every record whose LogID is greater than after, in order.
	Replay(ctx context.Context, after int64, each func(Record) error) error

	// Documents calls each with the newest record of every document, in order.
	Documents(ctx context.Context, each func(Record) error) error
	// Issuances calls each with every issuance, in order.
	Issuances(ctx context.Context, each func(Record) error) error
	// Decisions returns the decisions about a rollout, in order.
	Decisions(ctx context.Context, rollout string) ([]Record, error)
	// Actions pages through operators' actions, in order.
	Actions(ctx context.Context, after int64, limit int) ([]Record, error)
	// Event returns one event as it was received; ok is false when there is none.
	Event(ctx context.Context, hostname, rollout string, seq int64) (e Event, ok bool, err error)
	// Events pages through events; a filter's empty fields match all.
	Events(ctx context.Context, f EventFilter) ([]LoggedEvent, error)
	// EventsBefore returns the events of a rollout with LogIDs below before, by
	// hostname and seq: those that came before it was known.
	EventsBefore(ctx context.Context, rollout string, before int64) ([]LoggedEvent, error)

	// Check verifies the database's own integrity.
	Check(ctx context.Context) error
	// Schema is the version of the schema in the database.
	Schema(ctx context.Context) (int64, error)
	Close() error
}

// ErrNewerSchema: the database was written by a newer program.
var ErrNewerSchema = errors.New("the database has a newer schema than this program knows; run the newer program, or restore a backup")

// Batch is what one transaction writes.
type Batch struct {
	Records []Record
	Rows    []Row // the newest body of each row that the records changed
}

// Record is one thing that happened. Exactly one of its pointers is set.
type Record struct {
	LogID int64
	At    time.Time

	Event    *Event
	Document *Document
	Action   *Action
	Decision *Decision
	Issuance *Issuance
}

// Verdict is what became of an event when it was received. It never changes:
// an unmirrored event that was applied later still was unmirrored on arrival.
type Verdict string

// The verdicts under which an event is stored.
const (
	Stored     Verdict = "stored"     // applied to the host's state
	Refused    Verdict = "refused"    // by Step, or wrongly signed; consumed its number
	Unknown    Verdict = "unknown"    // of a kind that this program does not know
	Unmirrored Verdict = "unmirrored" // its rollout was not known
)

// Signing is what the check of an event's signature found.
type Signing string

// The findings.
const (
	SignatureGood Signing = "good"
	SignatureNone Signing = "unverified" // no key is declared for the host
	SignatureBad  Signing = "bad"
)

// Event is an event as a host sent it.
type Event struct {
	Hostname string
	Rollout  string
	Seq      int64
	Kind     string
	Verdict  Verdict
	Signing  Signing
	Detail   string // why it was refused
	Envelope []byte // as received
}

// LoggedEvent is an event with its place in the log.
type LoggedEvent struct {
	LogID int64
	At    time.Time
	Event
}

// EventFilter selects events; After is the LogID to go on from.
type EventFilter struct {
	Hostname string
	Rollout  string
	After    int64
	Limit    int
}

// Kinds of documents.
const (
	KindFleet       = "fleet"
	KindManifest    = "manifest"
	KindRevocations = "revocations"
	KindNonces      = "nonces"
)

// Document is a signed document that verified, as received.
type Document struct {
	Kind      string
	Name      string // the rollout id of a manifest
	Hash      string // hex SHA-256 of the canonical bytes
	KeyID     string
	Bytes     []byte
	Signature []byte
	Fleet     []byte // the fleet document that gave a manifest its policy; usually nil
}

// Action is what an operator asked for and was granted.
type Action struct {
	Who     string          `json:"who"`
	Verb    string          `json:"verb"`
	Subject string          `json:"subject"`
	Why     string          `json:"why,omitempty"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// Decision is an action of the core that was committed.
type Decision struct {
	Kind     string
	Hostname string
	Rollout  string
	Body     []byte // JSON, by kind
}

// Issuance is a certificate that was issued, and the nonce that it burned.
type Issuance struct {
	Serial         string    `json:"serial"`
	Role           string    `json:"role"`
	Name           string    `json:"name"`
	KeyFingerprint string    `json:"keyFingerprint"`
	Nonce          string    `json:"nonce,omitempty"`
	NotBefore      time.Time `json:"notBefore"`
	NotAfter       time.Time `json:"notAfter"`
	CertPEM        string    `json:"certPem"`
}

// Row is one derived value. A nil Body deletes it.
type Row struct {
	Table string
	Key   string
	Sub   string // second part of the key; may be empty
	Body  []byte // JSON
}
