package core

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"maps"
	"sync"
	"time"

	"nixfleet/internal/controlplane/source"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
)

// Served is a document with its signature, as they were received together.
type Served struct {
	Bytes     []byte
	Signature []byte
	ETag      string // of both

	once       sync.Once
	compressed []byte
}

func newServed(d *store.Document) *Served {
	return &Served{Bytes: d.Bytes, Signature: d.Signature, ETag: `"` + d.Hash + `"`}
}

// Gzip is the document compressed, once for all who ask.
func (d *Served) Gzip() []byte {
	d.once.Do(func() {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is one that there is
		_, _ = w.Write(d.Bytes)                               // a buffer takes everything
		_ = w.Close()
		d.compressed = b.Bytes()
	})
	return d.compressed
}

// Documents are the verified documents of one moment. They never change, so that
// requests read them without asking the core.
type Documents struct {
	Fleet       *trust.Verified[fleet.Fleet] // nil before the first
	Revocations *trust.Verified[fleet.Revocations]
	Nonces      *trust.Verified[fleet.Nonces]

	fleet     *Served
	manifests map[string]*Served
	verified  map[string]*trust.Verified[fleet.Manifest]
	keys      map[string]ed25519.PublicKey
	allowed   map[string]fleet.Nonce
	revoked   map[string][]fleet.Revocation // by host
	barred    map[string]bool               // keys, by fingerprint
	forgotten map[string]time.Time          // by host: when it was forgotten
	marks     trust.Marks
	plans     map[string]string // plan hash of every rollout id that was ever accepted
}

// FleetDocument is what is served as the fleet document; nil before the first.
func (d *Documents) FleetDocument() *Served { return d.fleet }

// Manifest is what is served for a rollout; nil when it is not known.
func (d *Documents) Manifest(id string) *Served { return d.manifests[id] }

// ManifestDocument is the manifest of a rollout; nil when it is not known.
func (d *Documents) ManifestDocument(id string) *trust.Verified[fleet.Manifest] {
	return d.verified[id]
}

// HostKey is the key that a host is declared with; nil when none is.
func (d *Documents) HostKey(host string) ed25519.PublicKey { return d.keys[host] }

// Nonce is the allowance of a bootstrap token.
func (d *Documents) Nonce(nonce string) (fleet.Nonce, bool) {
	n, ok := d.allowed[nonce]
	return n, ok
}

// Marks are the high-water marks of what was accepted.
func (d *Documents) Marks() trust.Marks { return d.marks }

// Plan is the plan hash under which a rollout id was accepted, for ever; "" when
// it never was.
func (d *Documents) Plan(id string) string { return d.plans[id] }

// Declared tells whether the newest fleet has the host.
func (d *Documents) Declared(host string) bool {
	if d.Fleet == nil {
		return false
	}
	_, ok := d.Fleet.Doc().Hosts[host]
	return ok
}

// Revoked tells why what was given to a host at a time, for a key, does not
// count any more; "" when it does.
func (d *Documents) Revoked(host, fingerprint string, since time.Time) string {
	if d.barred[fingerprint] {
		return "this key was revoked"
	}
	for _, r := range d.revoked[host] {
		if since.Before(r.NotBefore) {
			return "what host " + host + " was given before " + r.NotBefore.UTC().Format(time.RFC3339) + " was revoked"
		}
	}
	if at := d.forgotten[host]; since.Before(at) {
		return "host " + host + " was forgotten at " + at.UTC().Format(time.RFC3339) + "; a new token enrols it again"
	}
	return ""
}

// Forgotten is when a host was forgotten last; the zero time when it never was.
func (d *Documents) Forgotten(host string) time.Time { return d.forgotten[host] }

// Documents are those of the last commit.
func (c *Core) Documents() *Documents { return c.docs.Load() }

func (s *state) documents() *Documents {
	d := &Documents{
		Fleet: s.fleet, Revocations: s.revocations, Nonces: s.nonces,
		fleet:     s.served[fleetKey],
		manifests: map[string]*Served{},
		verified:  maps.Clone(s.manifests),
		keys:      map[string]ed25519.PublicKey{},
		allowed:   map[string]fleet.Nonce{},
		revoked:   map[string][]fleet.Revocation{},
		barred:    map[string]bool{},
		forgotten: maps.Clone(s.world.GivenBefore),
	}
	for id := range s.manifests {
		d.manifests[id] = s.served[manifestKey(id)]
	}
	if s.fleet != nil {
		for name, h := range s.fleet.Doc().Hosts {
			if h.Pubkey == nil {
				continue
			}
			if key, err := identity.ParsePublicKey(*h.Pubkey); err == nil { // release refuses others; such a host counts as undeclared
				d.keys[name] = key
			}
		}
	}
	if s.nonces != nil {
		for _, n := range s.nonces.Doc().Nonces {
			d.allowed[n.Nonce] = n
		}
	}
	if s.revocations != nil {
		for _, r := range s.revocations.Doc().Revocations {
			if r.KeyFingerprint != "" {
				d.barred[r.KeyFingerprint] = true
			}
			d.revoked[r.Hostname] = append(d.revoked[r.Hostname], r)
		}
	}
	d.marks, d.plans = s.marks()
	return d
}

func (s *state) marks() (trust.Marks, map[string]string) {
	m := trust.Marks{Channels: map[string]trust.Mark{}}
	plans := maps.Clone(s.world.Tombstones)
	if s.fleet != nil {
		m.Fleet = s.fleet.Mark()
	}
	if s.revocations != nil {
		m.Revocations = s.revocations.Mark()
	}
	if s.nonces != nil {
		m.Nonces = s.nonces.Mark()
	}
	for id, v := range s.manifests {
		channel := v.Doc().Channel
		m.Channels[channel] = m.Channels[channel].Higher(v.Mark())
		plans[id] = v.PlanHash()
	}
	return m, plans
}

const fleetKey = store.KindFleet

func manifestKey(id string) string { return store.KindManifest + "/" + id }

func documentKey(d *store.Document) string {
	if d.Kind == store.KindManifest {
		return manifestKey(d.Name)
	}
	return d.Kind
}

// Publish takes the documents that are new. They are logged in the order in
// which they depend on each other, in one transaction.
func (c *Core) Publish(ctx context.Context, r source.Snapshot) error {
	if r.Empty() {
		return nil
	}
	return c.submit(ctx, func(b *batch) {
		s := b.state
		if r.Revocations != nil && newer(s.revocations, *r.Revocations) {
			b.document(store.KindRevocations, "", r.Revocations.Hash(), r.Revocations.Entry())
		}
		if r.Nonces != nil && newer(s.nonces, *r.Nonces) {
			b.document(store.KindNonces, "", r.Nonces.Hash(), r.Nonces.Entry())
		}
		if r.Fleet != nil && newer(s.fleet, *r.Fleet) {
			b.document(store.KindFleet, "", r.Fleet.Hash(), r.Fleet.Entry())
		}
		for _, m := range r.Manifests {
			if b.wants(m) {
				b.document(store.KindManifest, m.Doc().ID(), m.Hash(), m.Entry())
			}
		}
		if s.docsChanged {
			b.planDue = true
			crashpoint.Here("core/documents-logged", "new documents were verified; nothing of them is stored")
		}
	})
}

// wants tells whether a manifest is news: of the newest release, or newer bytes
// of a rollout that is known. A pruned rollout never comes back.
func (b *batch) wants(m trust.Verified[fleet.Manifest]) bool {
	id := m.Doc().ID()
	if _, pruned := b.state.world.Tombstones[id]; pruned {
		return false
	}
	known := b.state.manifests[id]
	if known == nil {
		return b.state.fleet != nil && m.Doc().FleetResolvedHash == b.state.fleet.Hash()
	}
	return m.PlanHash() == known.PlanHash() && newer(known, m)
}

func newer[T any](have *trust.Verified[T], got trust.Verified[T]) bool {
	return have == nil || got.SignedAt().After(have.SignedAt())
}

func (b *batch) document(kind, name, hash string, e trust.Entry) {
	b.log(store.Record{Document: &store.Document{
		Kind: kind, Name: name, Hash: hash, KeyID: e.KeyID, Bytes: e.Document, Signature: e.Signature, Fleet: e.Fleet,
	}})
}
