package trust

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nixfleet/internal/fleet"
)

// Skew is how far the clocks of a signer and a host may be apart.
const Skew = 60 * time.Second

// Document is a kind of document that Verify takes. Manifests have more to be
// checked against: see VerifyManifest.
type Document interface {
	fleet.Fleet | fleet.Revocations | fleet.Nonces
}

// Verify checks a document at one point of time. The window is how old it may
// be. A fleet document says that itself, by the widest window of its channels,
// and the window given, unless it is 0, narrows it. The mark is that of the
// newest document of its kind which was accepted before.
func Verify[T Document](doc, sig []byte, slot Slot, now time.Time, window time.Duration, mark Mark) (Verified[T], error) {
	v, err := open[T](doc, sig, slot, now)
	if err != nil {
		return Verified[T]{}, err
	}
	if f, ok := any(v.doc).(*fleet.Fleet); ok {
		window = narrowed(f.Window(), window)
	}
	if err := checkDates(v.signedAt, slot, now, window); err != nil {
		return Verified[T]{}, err
	}
	if err := mark.admit(v.signedAt, v.hash); err != nil {
		return Verified[T]{}, err
	}
	return v, nil
}

// narrowed is the window that was signed, or a shorter one that was given. Where
// none was signed, it is the one given.
func narrowed(signed, given time.Duration) time.Duration {
	if signed == 0 || given > 0 && given < signed {
		return given
	}
	return signed
}

// CheckSignature tells whether a key that is valid now signed the document, and
// nothing else: neither how old it is nor what it says. It is for producers who
// sign again what is theirs; nobody acts on a document for this.
func CheckSignature(doc, sig []byte, slot Slot, now time.Time) error {
	_, _, err := checkSignature(doc, sig, slot, now)
	return err
}

func checkSignature(doc, sig []byte, slot Slot, now time.Time) (canonical []byte, by Key, err error) {
	canonical, err = canonicalDocument(doc)
	if err != nil {
		return nil, Key{}, err
	}
	by, ok := slot.Verify(canonical, sig, now)
	if !ok {
		e := refuse(ErrBadSignature, "none of the %d keys that are valid at %s made it", len(slot.ValidAt(now)), stamp(now))
		e.Now = now
		return nil, Key{}, e
	}
	return canonical, by, nil
}

// open takes a document as far as its contents may be believed: form, signature,
// schema, and that it has a date.
func open[T any](doc, sig []byte, slot Slot, now time.Time) (Verified[T], error) {
	canonical, key, err := checkSignature(doc, sig, slot, now)
	if err != nil {
		return Verified[T]{}, err
	}
	v, err := decode[T](doc, canonical)
	if err != nil {
		return Verified[T]{}, err
	}
	v.signature, v.keyID, v.at = sig, key.ID(), now
	return v, nil
}

// read decodes a document whose signature is not in question.
func read[T any](doc []byte) (Verified[T], error) {
	canonical, err := canonicalDocument(doc)
	if err != nil {
		return Verified[T]{}, err
	}
	return decode[T](doc, canonical)
}

func canonicalDocument(doc []byte) ([]byte, error) {
	canonical, err := Canonical(doc)
	if err != nil {
		return nil, err
	}
	if canonical[0] != '{' {
		return nil, refuse(ErrMalformed, "not a JSON object")
	}
	return canonical, nil
}

// header is what all documents have in common.
type header struct {
	SchemaVersion int        `json:"schemaVersion"`
	Meta          fleet.Meta `json:"meta"`
}

// checkedBefore: names and text of canonical bytes are in order, and large
// documents are decoded in half the time when that is not looked at again.
var checkedBefore = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func decode[T any](doc, canonical []byte) (Verified[T], error) {
	v := Verified[T]{doc: new(T), bytes: doc}
	m, isManifest := any(v.doc).(*fleet.Manifest)
	if isManifest {
		// In one piece: a list that grows leaves as much garbage as it has hosts.
		m.HostSet = make([]fleet.Target, 0, len(canonical)/shortestTarget)
	}
	if err := json.Unmarshal(canonical, v.doc, checkedBefore); err != nil {
		// A later schema may have other types: then the version is what is wrong.
		var h header
		if json.Unmarshal(canonical, &h) == nil {
			if err := h.checkSchema(); err != nil {
				return Verified[T]{}, err
			}
		}
		return Verified[T]{}, refuse(ErrMalformed, "%v", err)
	}
	h, missing := headerOf(v.doc)
	if err := h.checkSchema(); err != nil {
		return Verified[T]{}, err
	}
	if missing != "" {
		return Verified[T]{}, refuse(ErrMalformed, "%s is missing: this is a document of another kind", missing)
	}
	if h.Meta.SignedAt == nil {
		return Verified[T]{}, refuse(ErrNotSigned, "meta.signedAt is missing")
	}
	v.signedAt = *h.Meta.SignedAt
	if isManifest {
		v.planHash = planHash(canonical)
	} else {
		v.hash = Sum(canonical)
	}
	return v, nil
}

// shortestTarget is the length of the shortest entry that a host set can have.
const shortestTarget = len(`{"hostname":"h","targetClosure":"00000000000000000000000000000000-n","waveIndex":0},`)

// headerOf is a document's header, and the name of a member that its kind always
// has, when it has it not. One key signs all kinds: without that look a list of
// nonces, put in the place of the revocations, would be a list of none.
func headerOf(doc any) (h header, missing string) {
	unless := func(there bool, name string) string {
		if there {
			return ""
		}
		return name
	}
	switch d := doc.(type) {
	case *fleet.Fleet:
		return header{d.SchemaVersion, d.Meta}, unless(d.Hosts != nil, "hosts")
	case *fleet.Manifest:
		return header{d.SchemaVersion, d.Meta}, unless(d.ChannelRef != "", "channelRef")
	case *fleet.Revocations:
		return header{d.SchemaVersion, d.Meta}, unless(d.Revocations != nil, "revocations")
	case *fleet.Nonces:
		return header{d.SchemaVersion, d.Meta}, unless(d.Nonces != nil, "nonces")
	}
	panic("trust: a document of an unknown kind")
}

// checkSchema looks at the document's version and, where it is given, at that of
// its meta.
func (h header) checkSchema() error {
	version := h.SchemaVersion
	if version == fleet.SchemaVersion && h.Meta.SchemaVersion != 0 {
		version = h.Meta.SchemaVersion
	}
	if version != fleet.SchemaVersion {
		return refuse(ErrSchema, "version %d; this program understands version %d", version, fleet.SchemaVersion)
	}
	return nil
}

// checkDates refuses a date that is ahead of now, before what the owner rejects,
// or too long ago.
func checkDates(signedAt time.Time, slot Slot, now time.Time, window time.Duration) error {
	if signedAt.Sub(now) > Skew {
		e := refuse(ErrFutureDated, "signed at %s, and it is %s", stamp(signedAt), stamp(now))
		e.SignedAt, e.Now = signedAt, now
		return e
	}
	if signedAt.Before(slot.RejectBefore) {
		e := refuse(ErrRejectedBefore, "signed at %s; what was signed before %s is rejected", stamp(signedAt), stamp(slot.RejectBefore))
		e.SignedAt, e.Bound = signedAt, slot.RejectBefore
		return e
	}
	if age := now.Sub(signedAt); age-Skew > window {
		e := refuse(ErrStale, "signed at %s, %s before %s; it may be %s old", stamp(signedAt), age, stamp(now), window)
		e.SignedAt, e.Now, e.Age, e.Window = signedAt, now, age, window
		return e
	}
	return nil
}
