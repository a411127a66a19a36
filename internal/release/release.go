// Package release makes signed documents of a fleet and publishes them.
//
// It promises that what it publishes verifies: every document was checked with
// the public key, as a host will check it, before the first file is replaced.
// All documents of one run carry one date, newer than that of the run before. The
// fleet document is published last, so whoever sees it finds its manifests. A
// plan that was published under a rollout id is never published otherwise.
//
// It needs a fleet whose closures are in the binary cache already, and a folder
// that nobody else publishes to. It never publishes a part: an error before
// publishing leaves the folder as it was.
package release

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// The names of the published documents, below the folder.
const (
	FleetName       = "fleet.resolved.json"
	RevocationsName = "revocations.json"
	NoncesName      = "bootstrap-nonces.json"
	rolloutsDir     = "rollouts"
)

// ManifestName is the name of a rollout's manifest below the folder.
func ManifestName(rolloutID string) string { return filepath.Join(rolloutsDir, rolloutID+".json") }

// Signer signs canonical bytes.
type Signer interface {
	Sign(ctx context.Context, canonical []byte) ([]byte, error)
}

// Publisher signs into a folder.
type Publisher struct {
	Folder    string
	Signer    Signer
	Slot      trust.Slot // what must verify the signatures
	Algorithm string     // of the signer's key, said in every document's meta
}

// Request is one release.
type Request struct {
	// Fleet is the fleet document as it was declared; its meta is replaced. Nil:
	// sign again what is published, without a new plan.
	Fleet []byte
	// Revocations and Nonces replace the published ones. Nil: those are signed
	// again, if there are any.
	Revocations, Nonces []byte
	// Again are channels that get another attempt.
	Again []string
	// Ref is the hex reference of all channels' rollouts. "": each channel's is
	// the beginning of its plan's hash, so that the same plan has the same id.
	Ref string
	// Commit goes into the meta of every document. "": none is known.
	Commit string
	Now    time.Time
}

// Result is what was published.
type Result struct {
	SignedAt  time.Time `json:"signedAt"`
	FleetHash string    `json:"fleetResolvedHash"`
	Rollouts  []Rollout `json:"rollouts"`
	Warnings  []string  `json:"warnings"`
}

// Rollout is one published manifest.
type Rollout struct {
	ID       string `json:"rolloutId"`
	PlanHash string `json:"planHash"`
	Hosts    int    `json:"hosts"`
	New      bool   `json:"new"` // not published before under this id
}

// Release makes, signs, checks and publishes the documents.
func (p Publisher) Release(ctx context.Context, r Request) (Result, error) {
	old, err := readPublished(p.Folder)
	if err != nil {
		return Result{}, err
	}
	d := &drafting{Request: r, old: old, meta: p.meta(r, old)}
	if r.Fleet == nil {
		err = d.again(p.Slot)
	} else {
		err = d.project()
	}
	if err != nil {
		return Result{}, err
	}
	if err := d.draftLists(p.Slot); err != nil {
		return Result{}, err
	}
	pairs, err := p.sign(ctx, d)
	if err != nil {
		return Result{}, err
	}
	if err := publish(p.Folder, pairs); err != nil {
		return Result{}, err
	}
	return d.result(), nil
}

// meta dates a release. Documents are as new as their date, to the second, so
// one that follows within a second is dated a second later.
func (p Publisher) meta(r Request, old published) fleet.Meta {
	signedAt := r.Now.UTC().Truncate(time.Second)
	if !signedAt.After(old.signedAt) {
		signedAt = old.signedAt.Add(time.Second)
	}
	meta := fleet.Meta{SchemaVersion: fleet.SchemaVersion, SignedAt: &signedAt, SignatureAlgorithm: p.Algorithm}
	if r.Commit != "" {
		meta.CICommit = &r.Commit
	}
	return meta
}

// drafting is a release before its signatures.
type drafting struct {
	Request
	old       published
	meta      fleet.Meta
	fleet     []byte // all canonical
	fleetHash string
	warnings  []string
	manifests []manifest
	lists     []list
}

type manifest struct {
	id       string
	canon    []byte
	planHash string
	hosts    int
}

// project drafts from a declared fleet.
func (d *drafting) project() error {
	var err error
	if d.fleet, err = trust.Restamp(d.Fleet, d.meta, ""); err != nil {
		return fmt.Errorf("fleet document: %w", err)
	}
	d.fleetHash = trust.Sum(d.fleet)
	f := &fleet.Fleet{}
	if err := json.Unmarshal(d.fleet, f); err != nil {
		return fmt.Errorf("fleet document: %w", err)
	}
	if err := f.Validate(); err != nil {
		return fmt.Errorf("fleet document:\n%w", err)
	}
	d.warnings = f.Warnings()
	refs, err := d.refs(f)
	if err != nil {
		return err
	}
	for _, channel := range d.Again {
		if _, ok := refs[channel]; !ok {
			return fmt.Errorf("another attempt of channel %s: no host of it has a closure", channel)
		}
	}
	for channel, ref := range refs {
		attempt := d.old.attempt(channel, ref)
		if slices.Contains(d.Again, channel) {
			attempt++
		}
		all, err := fleet.Project(f, fleet.Release{FleetHash: d.fleetHash, Ref: ref, Attempts: map[string]int{channel: attempt}, Meta: d.meta})
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.Channel != channel {
				continue
			}
			canon, err := trust.Encode(m)
			if err != nil {
				return fmt.Errorf("manifest of channel %s: %w", channel, err)
			}
			if err := d.add(m.ID(), canon, len(m.HostSet)); err != nil {
				return err
			}
		}
	}
	d.sort()
	return nil
}

// refs are the channels that have a rollout, with its reference.
func (d *drafting) refs(f *fleet.Fleet) (map[string]string, error) {
	// A plan's hash covers its ref, so the plan is hashed under a fixed one.
	const unnamed = "0"
	all, err := fleet.Project(f, fleet.Release{FleetHash: d.fleetHash, Ref: unnamed, Meta: d.meta})
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for _, m := range all {
		refs[m.Channel] = d.Ref
		if d.Ref != "" {
			continue
		}
		canon, err := trust.Encode(m)
		if err != nil {
			return nil, fmt.Errorf("manifest of channel %s: %w", m.Channel, err)
		}
		hash, err := trust.PlanHash(canon)
		if err != nil {
			return nil, fmt.Errorf("manifest of channel %s: %w", m.Channel, err)
		}
		refs[m.Channel] = hash[:40]
	}
	return refs, nil
}

// again drafts from what is published. What is signed a second time must have
// been signed by us a first time; how long ago does not matter, or a release that
// went stale could never be made fresh.
func (d *drafting) again(slot trust.Slot) error {
	if d.old.fleet == nil {
		return errors.New("nothing is published here that could be signed again; release a fleet first")
	}
	if err := trust.CheckSignature(d.old.fleet, d.old.fleetSig, slot, d.Now); err != nil {
		return fmt.Errorf("published %s does not verify, so it is not signed again: %w", FleetName, err)
	}
	published, err := trust.Canonical(d.old.fleet)
	if err != nil {
		return err
	}
	if d.fleet, err = trust.Restamp(d.old.fleet, d.meta, ""); err != nil {
		return err
	}
	d.fleetHash = trust.Sum(d.fleet)
	left := slices.Clone(d.Again)
	for id, pair := range d.old.manifests {
		if pair.fleetHash != trust.Sum(published) {
			continue // of an earlier release
		}
		if err := trust.CheckSignature(pair.doc, pair.sig, slot, d.Now); err != nil {
			return fmt.Errorf("published manifest of %s does not verify, so it is not signed again: %w", id, err)
		}
		m, doc := &fleet.Manifest{}, pair.doc
		if err := json.Unmarshal(doc, m); err != nil {
			return fmt.Errorf("published manifest of %s: %w", id, err)
		}
		if i := slices.Index(left, m.Channel); i >= 0 {
			left = slices.Delete(left, i, i+1)
			if doc, id, err = nextAttempt(doc, m, d.old.attempt(m.Channel, m.ChannelRef)+1); err != nil {
				return err
			}
		}
		canon, err := trust.Restamp(doc, d.meta, d.fleetHash)
		if err != nil {
			return fmt.Errorf("manifest of %s: %w", id, err)
		}
		if err := d.add(id, canon, len(m.HostSet)); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("another attempt of channel %s: it is not in the published release", left[0])
	}
	d.sort()
	return nil
}

// nextAttempt is the manifest under its next id. All other members stay.
func nextAttempt(doc []byte, m *fleet.Manifest, attempt int) (next []byte, id string, err error) {
	var top map[string]jsontext.Value
	if err := json.Unmarshal(doc, &top); err != nil {
		return nil, "", err
	}
	display := fleet.RolloutID(m.Channel, m.ChannelRef[:min(8, len(m.ChannelRef))], attempt)
	if top["displayName"], err = json.Marshal(display); err != nil {
		return nil, "", err
	}
	if top["attempt"], err = json.Marshal(attempt); err != nil {
		return nil, "", err
	}
	next, err = trust.Encode(top)
	return next, fleet.RolloutID(m.Channel, m.ChannelRef, attempt), err
}

// add takes a manifest up, unless its id was published with another plan.
func (d *drafting) add(id string, canon []byte, hosts int) error {
	hash, err := trust.PlanHash(canon)
	if err != nil {
		return fmt.Errorf("manifest of %s: %w", id, err)
	}
	if old, ok := d.old.manifests[id]; ok {
		was, err := trust.PlanHash(old.doc)
		if err != nil {
			return fmt.Errorf("published manifest of %s: %w", id, err)
		}
		if was != hash {
			return fmt.Errorf("rollout %s was published with another plan, which hosts hold on to: commit the change, or give a new --ref", id)
		}
	}
	d.manifests = append(d.manifests, manifest{id: id, canon: canon, planHash: hash, hosts: hosts})
	return nil
}

func (d *drafting) sort() {
	slices.SortFunc(d.manifests, func(a, b manifest) int { return strings.Compare(a.id, b.id) })
}

// list is a signed list beside the fleet.
type list struct {
	name   string
	canon  []byte
	verify func(doc, sig []byte, slot trust.Slot, now time.Time) error
}

// draftLists drafts revocations and nonces; those that are published only if they
// were signed by us.
func (d *drafting) draftLists(slot trust.Slot) error {
	for _, l := range []struct {
		list
		given, old, oldSig []byte
	}{
		{list{name: RevocationsName, verify: verifyList[fleet.Revocations]}, d.Revocations, d.old.revocations, d.old.revocationsSig},
		{list{name: NoncesName, verify: verifyList[fleet.Nonces]}, d.Nonces, d.old.nonces, d.old.noncesSig},
	} {
		doc := l.given
		if doc == nil && l.old != nil {
			if err := trust.CheckSignature(l.old, l.oldSig, slot, d.Now); err != nil {
				return fmt.Errorf("published %s does not verify, so it is not signed again: %w", l.name, err)
			}
			doc = l.old
		}
		if doc == nil {
			continue
		}
		var err error
		if l.canon, err = trust.Restamp(doc, d.meta, ""); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		d.lists = append(d.lists, l.list)
	}
	return nil
}

func verifyList[T fleet.Revocations | fleet.Nonces](doc, sig []byte, slot trust.Slot, now time.Time) error {
	_, err := trust.Verify[T](doc, sig, slot, now, forever, trust.Mark{})
	return err
}

func (d *drafting) result() Result {
	r := Result{SignedAt: *d.meta.SignedAt, FleetHash: d.fleetHash, Rollouts: []Rollout{}, Warnings: d.warnings}
	if r.Warnings == nil {
		r.Warnings = []string{}
	}
	for _, m := range d.manifests {
		_, known := d.old.manifests[m.id]
		r.Rollouts = append(r.Rollouts, Rollout{ID: m.id, PlanHash: m.planHash, Hosts: m.hosts, New: !known})
	}
	return r
}

// sign signs and checks every document, and returns them in the order in which
// they are to be published.
func (p Publisher) sign(ctx context.Context, d *drafting) ([]pair, error) {
	sign := func(name string, canon []byte, verify func(sig []byte) error) (pair, error) {
		sig, err := p.Signer.Sign(ctx, canon)
		if err != nil {
			return pair{}, fmt.Errorf("sign %s: %w", name, err)
		}
		if err := verify(sig); err != nil {
			return pair{}, fmt.Errorf("%s does not verify with the public key, nothing was published: %w", name, err)
		}
		return pair{name: name, doc: canon, sig: sig}, nil
	}
	var f trust.Verified[fleet.Fleet]
	last, err := sign(FleetName, d.fleet, func(sig []byte) (err error) {
		f, err = trust.Verify[fleet.Fleet](d.fleet, sig, p.Slot, d.Now, forever, trust.Mark{})
		return err
	})
	if err != nil {
		return nil, err
	}
	var pairs []pair
	for _, m := range d.manifests {
		signed, err := sign(ManifestName(m.id), m.canon, func(sig []byte) error {
			_, err := trust.VerifyManifest(m.canon, sig, p.Slot, d.Now, forever, trust.Mark{}, trust.Expect{RolloutID: m.id, Fleet: &f})
			return err
		})
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, signed)
	}
	for _, list := range d.lists {
		signed, err := sign(list.name, list.canon, func(sig []byte) error { return list.verify(list.canon, sig, p.Slot, d.Now) })
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, signed)
	}
	return append(pairs, last), nil
}

// forever is the window in which what was signed this moment is checked.
const forever = time.Duration(math.MaxInt64)
