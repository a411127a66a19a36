package source_test

import (
	"context"
	"crypto/ed25519"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nixfleet/internal/controlplane/source"
	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

var epoch = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// published is a folder with releases, and what a control plane has taken of it.
type published struct {
	t        *testing.T
	dir      string
	ci       trust.Signer
	now      time.Time
	verifier *source.Verifier
	known    source.Known
	taken    map[string]*trust.Verified[fleet.Manifest]
	plans    map[string]string
}

func newPublished(t *testing.T) *published {
	t.Helper()
	p := &published{
		t: t, dir: t.TempDir(), ci: signer(t), now: epoch,
		taken: map[string]*trust.Verified[fleet.Manifest]{}, plans: map[string]string{},
	}
	p.verifier = source.NewVerifier(source.Directory(p.dir))
	p.known.Manifest = func(id string) *trust.Verified[fleet.Manifest] { return p.taken[id] }
	p.known.Plan = func(id string) string { return p.plans[id] }
	return p
}

func signer(t *testing.T) trust.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := trust.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// poll polls once, and takes what is new.
func (p *published) poll() source.Snapshot {
	p.t.Helper()
	key := p.ci.Public()
	s := p.verifier.Poll(context.Background(), trust.Slot{Current: &key}, p.now, p.known)
	p.take(s)
	return s
}

func (p *published) take(s source.Snapshot) {
	p.known.Marks = s.Marks(p.known.Marks)
	if s.Fleet != nil {
		p.known.Fleet = s.Fleet
	}
	if s.Revocations != nil {
		p.known.Revocations = s.Revocations
	}
	if s.Nonces != nil {
		p.known.Nonces = s.Nonces
	}
	for _, m := range s.Manifests {
		p.taken[m.Doc().ID()], p.plans[m.Doc().ID()] = &m, m.PlanHash()
	}
}

// release publishes a release of one host in one channel, signed now, in the
// order in which the release tool does. It returns the manifest's id.
func (p *published) release(ref, closure string) string {
	p.t.Helper()
	target := fleet.Closure("0123456789abcdfghijklmnpqrsvwxyz-" + closure)
	policy := fleet.DefaultPolicy()
	meta := fleet.Meta{SchemaVersion: fleet.SchemaVersion, SignedAt: &p.now}
	f := &fleet.Fleet{
		SchemaVersion: fleet.SchemaVersion,
		Hosts:         map[string]fleet.Host{"web": {System: "x86_64-linux", Tags: []string{}, Channel: "stable", ClosureHash: &target}},
		Channels: map[string]fleet.Channel{"stable": {
			RolloutPolicy: "all", ReconcileIntervalMinutes: 30, FreshnessWindow: 1440, SigningIntervalMinutes: 60,
			Compliance: fleet.Compliance{Frameworks: []string{}, Mode: "disabled"},
		}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{"all": {
			Strategy: "all-at-once", Waves: []fleet.PolicyWave{{Selector: fleet.Selector{All: true}}}, Policy: policy,
		}},
		Waves: map[string][]fleet.Wave{"stable": {{Hosts: []string{"web"}}}},
		Edges: []fleet.Edge{}, ChannelEdges: []fleet.Edge{}, DisruptionBudgets: []fleet.Budget{},
		Meta: meta,
	}
	doc, err := trust.Encode(f)
	if err != nil {
		p.t.Fatal(err)
	}
	manifests, err := fleet.Project(f, fleet.Release{FleetHash: trust.Sum(doc), Ref: ref, Meta: meta})
	if err != nil {
		p.t.Fatal(err)
	}
	id := manifests[0].ID()
	p.sign(source.ManifestName(id), manifests[0])
	p.sign(source.RevocationsName, fleet.Revocations{SchemaVersion: 1, Revocations: []fleet.Revocation{}, Meta: meta})
	p.sign(source.NoncesName, fleet.Nonces{SchemaVersion: 1, Nonces: []fleet.Nonce{}, Meta: meta})
	p.sign(source.FleetName, f)
	return id
}

// sign publishes a document with its signature.
func (p *published) sign(name string, doc any) {
	p.t.Helper()
	canonical, err := trust.Encode(doc)
	if err != nil {
		p.t.Fatal(err)
	}
	sig, err := p.ci.Sign(canonical)
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(name+".sig", sig)
	p.put(name, canonical)
}

// put replaces a file as publishers do.
func (p *published) put(name string, content []byte) {
	p.t.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file+".new", content, 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		p.t.Fatal(err)
	}
}

func (p *published) get(name string) []byte {
	p.t.Helper()
	content, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return content
}

func (p *published) remove(name string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

// problems are the words of the problems, by document.
func problems(s source.Snapshot) map[string]string {
	words := map[string]string{}
	for _, problem := range s.Problems {
		words[problem.Document] = trust.Reason(problem.Err)
	}
	return words
}

// wantProblem polls until the document would be a problem, which it must be only
// then, and the only one.
func (p *published) wantProblem(document, word string) source.Problem {
	p.t.Helper()
	var s source.Snapshot
	for i := range source.BadAfter {
		if s = p.poll(); !s.Empty() {
			p.t.Fatalf("poll %d took %+v", i+1, s)
		}
		if i+1 < source.BadAfter && len(s.Problems) > 0 {
			p.t.Fatalf("poll %d has problems already: %v", i+1, problems(s))
		}
	}
	if got := problems(s); !maps.Equal(got, map[string]string{document: word}) {
		p.t.Fatalf("problems are %v, want %s: %s", got, document, word)
	}
	return s.Problems[0]
}
