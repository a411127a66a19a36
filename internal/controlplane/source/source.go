// Package source takes signed documents from where they are published.
//
// It promises that what a Snapshot holds was verified: a document and its
// signature are taken as a pair, checked by package trust, and are new to the
// caller. A pair that is not good changes nothing; when it stays so for BadAfter
// polls it is a Problem, because until then its other half may be on the way.
//
// It needs from its caller what was taken before (Known), and that the marks
// which taking a snapshot sets are made durable before the snapshot is acted
// upon. One goroutine polls.
//
// It never serves anything, never keeps a document, and never reads a name that
// it was given by a document or a request without having checked it.
package source

import "context"

// Source is where signed documents are published. It fetches; it judges nothing.
type Source interface {
	// String names the source to people: a folder, an address.
	String() string

	// Open begins one look at the source. What it returns is closed after it.
	Open(ctx context.Context) (Look, error)
}

// Look is one look at a source.
type Look interface {
	// Pair fetches a document and its signature by the document's name, such as
	// "fleet.resolved.json". When they are still the version that the caller has
	// seen, it may spare itself the bytes and return the version alone. Without
	// the document the error is fs.ErrNotExist.
	Pair(ctx context.Context, name, seen string) (Pair, error)

	// Rollouts are the ids of the manifests that are there, sorted; their
	// documents' names are those of ManifestName.
	Rollouts(ctx context.Context) ([]string, error)

	Close() error
}

// Pair is a document and its signature, as bytes.
type Pair struct {
	Document, Signature []byte
	Version             string // another one whenever the bytes are others
}

// The names of the documents.
const (
	FleetName       = "fleet.resolved.json"
	RevocationsName = "revocations.json"
	NoncesName      = "bootstrap-nonces.json"

	rolloutsDir = "rollouts"
	docSuffix   = ".json"
	sigSuffix   = ".sig"
)

// ManifestName is the name of a rollout's manifest.
func ManifestName(id string) string { return rolloutsDir + "/" + id + docSuffix }
