package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// BadAfter is for how many polls in a row a pair must be bad to be a Problem.
const BadAfter = 3

// Known is what was taken before, from any source. Nil documents are unknown.
type Known struct {
	Fleet       *trust.Verified[fleet.Fleet]
	Revocations *trust.Verified[fleet.Revocations]
	Nonces      *trust.Verified[fleet.Nonces]
	Manifest    func(id string) *trust.Verified[fleet.Manifest]
	Plan        func(id string) string // plan hash under which an id was ever taken, pruned ones included; "" for none
	Marks       trust.Marks
}

// Snapshot is what a poll found: the documents that are good and new, and the
// documents that are not good and stay so.
type Snapshot struct {
	Fleet       *trust.Verified[fleet.Fleet] // nil: nothing new, and so below
	Revocations *trust.Verified[fleet.Revocations]
	Nonces      *trust.Verified[fleet.Nonces]
	Manifests   []trust.Verified[fleet.Manifest] // of the newest fleet document, or newer bytes of a known rollout; by id
	Problems    []Problem                        // by document
}

// Empty tells whether there is nothing new.
func (s Snapshot) Empty() bool {
	return s.Fleet == nil && s.Revocations == nil && s.Nonces == nil && len(s.Manifests) == 0
}

// Marks are the marks that taking the snapshot sets, over those of before.
func (s Snapshot) Marks(before trust.Marks) trust.Marks {
	set := trust.Marks{Channels: map[string]trust.Mark{}}
	if s.Fleet != nil {
		set.Fleet = s.Fleet.Mark()
	}
	if s.Revocations != nil {
		set.Revocations = s.Revocations.Mark()
	}
	if s.Nonces != nil {
		set.Nonces = s.Nonces.Mark()
	}
	for _, m := range s.Manifests {
		c := m.Doc().Channel
		set.Channels[c] = set.Channels[c].Higher(m.Mark())
	}
	return before.Higher(set)
}

// Problem is a document that cannot be taken. What was taken before stays.
type Problem struct {
	Document string // its name; "" for the source itself
	Polls    int    // for how many in a row
	Err      error  // trust.Reason tells it in one word, or "" when it could not be read
}

// Verifier polls one source.
type Verifier struct {
	source  Source
	bad     map[string]Problem // by document, those of the last poll
	settled map[string]string  // by document, the version that holds nothing new
	release string             // hash of the fleet document for which that is so
}

// NewVerifier is a verifier that has not polled yet.
func NewVerifier(s Source) *Verifier {
	return &Verifier{source: s, bad: map[string]Problem{}, settled: map[string]string{}}
}

// Poll looks at the source once, at one point of time.
func (v *Verifier) Poll(ctx context.Context, slot trust.Slot, now time.Time, known Known) Snapshot {
	p := &poll{Verifier: v, slot: slot, now: now, known: known, before: v.bad}
	v.bad = map[string]Problem{}
	look, err := v.source.Open(ctx)
	p.verdict("", err)
	if err == nil {
		p.look = look
		p.all(ctx)
		p.verdict("", look.Close())
	}
	for _, problem := range v.bad {
		if problem.Polls >= BadAfter {
			p.found.Problems = append(p.found.Problems, problem)
		}
	}
	slices.SortFunc(p.found.Problems, func(a, b Problem) int { return cmp.Compare(a.Document, b.Document) })
	return p.found
}

// poll is one run of Poll.
type poll struct {
	*Verifier
	look   Look
	slot   trust.Slot
	now    time.Time
	known  Known
	before map[string]Problem
	found  Snapshot
}

// verdict notes what became of a document.
func (p *poll) verdict(document string, err error) {
	if err != nil {
		p.bad[document] = Problem{Document: document, Polls: p.before[document].Polls + 1, Err: err}
	}
}

// all takes the fleet document first. It is published last, so that what belongs
// to it is there when it is.
func (p *poll) all(ctx context.Context) {
	p.found.Fleet = take(ctx, p, FleetName, p.known.Fleet, func(d Pair) (trust.Verified[fleet.Fleet], error) {
		return trust.Verify[fleet.Fleet](d.Document, d.Signature, p.slot, p.now, 0, p.known.Marks.Fleet)
	})
	newest := cmp.Or(p.found.Fleet, p.known.Fleet)
	if newest == nil {
		return
	}
	if p.release != newest.Hash() {
		p.release = newest.Hash()
		clear(p.settled)
	}
	window := newest.Doc().Window()
	p.found.Revocations = take(ctx, p, RevocationsName, p.known.Revocations, func(d Pair) (trust.Verified[fleet.Revocations], error) {
		return trust.Verify[fleet.Revocations](d.Document, d.Signature, p.slot, p.now, window, p.known.Marks.Revocations)
	})
	p.found.Nonces = take(ctx, p, NoncesName, p.known.Nonces, func(d Pair) (trust.Verified[fleet.Nonces], error) {
		return trust.Verify[fleet.Nonces](d.Document, d.Signature, p.slot, p.now, window, p.known.Marks.Nonces)
	})
	ids, err := p.look.Rollouts(ctx)
	p.verdict(rolloutsDir, err)
	for _, id := range ids {
		if m := p.manifest(ctx, id, newest); m != nil {
			p.found.Manifests = append(p.found.Manifests, *m)
		}
	}
}

// errOtherRelease is the verdict on a manifest of an older release, which stays
// where it was published and concerns nobody.
var errOtherRelease = errors.New("published with another fleet document")

func (p *poll) manifest(ctx context.Context, id string, newest *trust.Verified[fleet.Fleet]) *trust.Verified[fleet.Manifest] {
	channel, _, _, _ := fleet.ParseRolloutID(id) // verification says what is wrong with an id
	have := p.known.Manifest(id)
	return take(ctx, p, ManifestName(id), have, func(d Pair) (trust.Verified[fleet.Manifest], error) {
		want := trust.Expect{RolloutID: id, PlanHash: p.known.Plan(id)}
		switch hash := publishedWith(d.Document); {
		case hash == "" || hash == newest.Hash():
			want.Fleet = newest
		case have == nil:
			return trust.Verified[fleet.Manifest]{}, errOtherRelease
		}
		return trust.VerifyManifest(d.Document, d.Signature, p.slot, p.now, 0, p.known.Marks.Channels[channel], want)
	})
}

// publishedWith is what a document that nobody has verified claims to belong to,
// or "": then verification says what is wrong with it.
func publishedWith(doc []byte) string {
	var m struct {
		FleetResolvedHash string `json:"fleetResolvedHash"`
	}
	if json.Unmarshal(doc, &m) != nil {
		return ""
	}
	return m.FleetResolvedHash
}

// take fetches a pair and verifies it, unless it is what is known already. Nil:
// it is not there, not new, or not good.
func take[T any](ctx context.Context, p *poll, name string, have *trust.Verified[T], verify func(Pair) (trust.Verified[T], error)) *trust.Verified[T] {
	seen := p.settled[name]
	d, err := p.look.Pair(ctx, name, seen)
	var got trust.Verified[T]
	switch {
	case err == nil && seen != "" && d.Version == seen:
		return nil
	case errors.Is(err, fs.ErrNotExist) && name != FleetName:
		return nil // it need not be published
	case err != nil:
	case have != nil && bytes.Equal(d.Document, have.Bytes()) && bytes.Equal(d.Signature, have.Signature()):
		p.settled[name] = d.Version
		return nil
	default:
		got, err = verify(d)
	}
	switch {
	case err == nil:
		return &got // settled when the caller knows it
	case errors.Is(err, errOtherRelease):
		p.settled[name] = d.Version
	default:
		p.verdict(name, err)
	}
	return nil
}
