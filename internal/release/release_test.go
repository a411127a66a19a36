package release_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/release"
	"nixfleet/internal/trust"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 500, time.UTC)

const declared = `{"schemaVersion": 1, "unknown": [1],
 "hosts": {
  "a": {"system": "x86_64-linux", "tags": [], "channel": "one", "closureHash": "00000000000000000000000000000001-a", "pubkey": null},
  "b": {"system": "x86_64-linux", "tags": [], "channel": "two", "closureHash": "00000000000000000000000000000002-b", "pubkey": null}},
 "channels": {
  "one": {"rolloutPolicy": "p", "reconcileIntervalMinutes": 30, "freshnessWindow": 60, "signingIntervalMinutes": 60, "compliance": {"frameworks": [], "mode": "disabled"}},
  "two": {"rolloutPolicy": "p", "reconcileIntervalMinutes": 30, "freshnessWindow": 60, "signingIntervalMinutes": 60, "compliance": {"frameworks": [], "mode": "disabled"}}},
 "rolloutPolicies": {"p": {"strategy": "all-at-once", "waves": []}},
 "waves": {}, "edges": [], "channelEdges": [], "disruptionBudgets": [],
 "meta": {"schemaVersion": 1, "signedAt": "2020-01-01T00:00:00Z", "ciCommit": "old"}}`

// signer signs with a key, and can be told to fail at the n-th document.
type signer struct {
	trust.Signer
	failAt, signed int
}

func (s *signer) Sign(_ context.Context, canonical []byte) ([]byte, error) {
	if s.signed++; s.signed == s.failAt {
		return nil, errors.New("the key is in another castle")
	}
	return s.Signer.Sign(canonical)
}

func newPublisher(t *testing.T, seed byte) (release.Publisher, *signer) {
	t.Helper()
	key, err := trust.NewSigner(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(seed), 32))))
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public()
	s := &signer{Signer: key}
	return release.Publisher{Folder: t.TempDir(), Signer: s, Slot: trust.Slot{Current: &public}, Algorithm: public.Algorithm}, s
}

func publish(t *testing.T, p release.Publisher, r release.Request) release.Result {
	t.Helper()
	result, err := p.Release(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// read verifies a published document as a reader would.
func readFleet(t *testing.T, p release.Publisher) trust.Verified[fleet.Fleet] {
	t.Helper()
	v, err := trust.Verify[fleet.Fleet](file(t, p, release.FleetName), file(t, p, release.FleetName+".sig"), p.Slot, now, 0, trust.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func readManifest(t *testing.T, p release.Publisher, id string) trust.Verified[fleet.Manifest] {
	t.Helper()
	f := readFleet(t, p)
	name := release.ManifestName(id)
	v, err := trust.VerifyManifest(file(t, p, name), file(t, p, name+".sig"), p.Slot, now, 0, trust.Mark{}, trust.Expect{RolloutID: id, Fleet: &f})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func file(t *testing.T, p release.Publisher, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.Folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestOneRunHasOneDate(t *testing.T) {
	p, _ := newPublisher(t, 'a')
	r := publish(t, p, release.Request{Fleet: []byte(declared), Nonces: []byte(`{"schemaVersion":1,"nonces":[]}`), Revocations: []byte(`{"schemaVersion":1,"revocations":[]}`), Ref: "ab", Commit: "c0ffee", Now: now})
	if len(r.Rollouts) != 2 || r.Rollouts[0].ID != "one@ab" || r.Rollouts[1].ID != "two@ab" || !r.SignedAt.Equal(now.Truncate(time.Second)) {
		t.Errorf("%+v", r)
	}
	f := readFleet(t, p)
	if f.Hash() != r.FleetHash || !f.SignedAt().Equal(r.SignedAt) || *f.Doc().Meta.CICommit != "c0ffee" {
		t.Errorf("%+v", f.Doc().Meta)
	}
	if !strings.Contains(string(f.Bytes()), `"unknown":[1]`) {
		t.Error("an unknown field was lost")
	}
	for _, rollout := range r.Rollouts {
		m := readManifest(t, p, rollout.ID)
		if m.PlanHash() != rollout.PlanHash || !m.SignedAt().Equal(r.SignedAt) || m.Doc().Meta.SignatureAlgorithm != "ed25519" {
			t.Errorf("%+v", m.Doc())
		}
	}
	if _, err := trust.Verify[fleet.Nonces](file(t, p, release.NoncesName), file(t, p, release.NoncesName+".sig"), p.Slot, now, time.Hour, trust.Mark{}); err != nil {
		t.Error(err)
	}
	if _, err := trust.Verify[fleet.Revocations](file(t, p, release.RevocationsName), file(t, p, release.RevocationsName+".sig"), p.Slot, now, time.Hour, trust.Mark{}); err != nil {
		t.Error(err)
	}
}

// Two runs within a second are still told apart, and so is one whose clock went
// back.
func TestEveryRunIsNewerThanTheOneBefore(t *testing.T) {
	p, _ := newPublisher(t, 'a')
	last := publish(t, p, release.Request{Fleet: []byte(declared), Ref: "ab", Now: now}).SignedAt
	for _, at := range []time.Time{now, now.Add(time.Millisecond), now.Add(-30 * time.Second)} {
		next := publish(t, p, release.Request{Fleet: []byte(declared), Ref: "ab", Now: at}).SignedAt
		if !next.After(last) {
			t.Errorf("%s after %s", next, last)
		}
		last = next
	}
}

// The same fleet has the same ids without anybody naming them; another has others.
func TestAPlanNamesItself(t *testing.T) {
	p, _ := newPublisher(t, 'a')
	first := publish(t, p, release.Request{Fleet: []byte(declared), Now: now})
	again := publish(t, p, release.Request{Fleet: []byte(declared), Now: now})
	changed := publish(t, p, release.Request{Fleet: []byte(strings.Replace(declared, "1-a", "3-a", 1)), Now: now})
	for i := range first.Rollouts {
		if first.Rollouts[i].ID != again.Rollouts[i].ID || !first.Rollouts[i].New || again.Rollouts[i].New {
			t.Errorf("%+v and %+v", first.Rollouts[i], again.Rollouts[i])
		}
	}
	if changed.Rollouts[0].ID == first.Rollouts[0].ID || changed.Rollouts[1].ID != first.Rollouts[1].ID {
		t.Errorf("%+v", changed.Rollouts)
	}
}

func TestAnotherAttemptOfOneChannel(t *testing.T) {
	p, _ := newPublisher(t, 'a')
	publish(t, p, release.Request{Fleet: []byte(declared), Ref: "ab", Now: now})
	for _, r := range []release.Request{
		{Again: []string{"one"}, Now: now},                                                                // without building
		{Fleet: []byte(declared), Ref: "ab", Again: []string{"one"}, Now: now},                            // with
		{Fleet: []byte(declared), Ref: "ab", Now: now, Nonces: []byte(`{"schemaVersion":1,"nonces":[]}`)}, // keeps it
		{Now: now}, // too
	} {
		publish(t, p, r)
	}
	two, three := readManifest(t, p, "one@ab.3"), readManifest(t, p, "two@ab")
	if two.Doc().Attempt != 3 || two.Doc().DisplayName != "one@ab.3" || three.Doc().Attempt != 1 {
		t.Errorf("%+v %+v", two.Doc(), three.Doc())
	}
	if _, err := p.Release(t.Context(), release.Request{Again: []string{"three"}, Now: now}); err == nil || !strings.Contains(err.Error(), "channel three") {
		t.Error(err)
	}
}

// Signing again changes the date and nothing else, also of what an older producer
// wrote: no policy, and fields that nobody knows.
func TestSigningAgainKeepsThePlan(t *testing.T) {
	p, s := newPublisher(t, 'a')
	publish(t, p, release.Request{Fleet: []byte(declared), Ref: "ab", Now: now})
	var m map[string]json.RawMessage
	name := release.ManifestName("one@ab")
	if err := json.Unmarshal(file(t, p, name), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "policy")
	m["mine"] = json.RawMessage(`{"b":[2,1]}`)
	doc, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := trust.SignDocument(doc, s.Signer)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{name: doc, name + ".sig": sig} {
		if err := os.WriteFile(filepath.Join(p.Folder, path), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := readManifest(t, p, "one@ab")
	r := publish(t, p, release.Request{Now: now})
	after := readManifest(t, p, "one@ab")
	if before.PlanHash() != after.PlanHash() || !after.SignedAt().After(before.SignedAt()) || len(r.Rollouts) != 2 {
		t.Errorf("%s at %s, %s at %s", before.PlanHash(), before.SignedAt(), after.PlanHash(), after.SignedAt())
	}
}

// Whatever goes wrong before publishing, the folder is as it was.
func TestNothingIsPublishedInPart(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, p *release.Publisher, s *signer) release.Request{
		"the signer fails half-way": func(_ *testing.T, _ *release.Publisher, s *signer) release.Request {
			s.failAt = s.signed + 2
			return release.Request{Fleet: []byte(declared), Ref: "cd", Now: now}
		},
		"another key than the pinned one": func(t *testing.T, p *release.Publisher, _ *signer) release.Request {
			other, _ := newPublisher(t, 'b')
			p.Signer = other.Signer
			return release.Request{Fleet: []byte(declared), Ref: "cd", Now: now}
		},
		"another plan under a known id": func(*testing.T, *release.Publisher, *signer) release.Request {
			return release.Request{Fleet: []byte(strings.Replace(declared, "1-a", "3-a", 1)), Ref: "ab", Now: now}
		},
		"a fleet that cannot work": func(*testing.T, *release.Publisher, *signer) release.Request {
			return release.Request{Fleet: []byte(strings.Replace(declared, `"channel": "one"`, `"channel": "none"`, 1)), Ref: "cd", Now: now}
		},
		"a published document that somebody changed": func(t *testing.T, p *release.Publisher, _ *signer) release.Request {
			path := filepath.Join(p.Folder, release.ManifestName("one@ab"))
			doc := strings.Replace(string(file(t, *p, release.ManifestName("one@ab"))), "1-a", "9-a", 1)
			if err := os.WriteFile(path, []byte(doc), 0o644); err != nil {
				t.Fatal(err)
			}
			return release.Request{Now: now}
		},
		"a list that is none": func(*testing.T, *release.Publisher, *signer) release.Request {
			return release.Request{Nonces: []byte(`{"schemaVersion":1,"nonces":7}`), Now: now}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := newPublisher(t, 'a')
			publish(t, p, release.Request{Fleet: []byte(declared), Ref: "ab", Now: now})
			request := spoil(t, &p, s)
			before := tree(t, p.Folder)
			if _, err := p.Release(t.Context(), request); err == nil {
				t.Error("it was published")
			}
			if after := tree(t, p.Folder); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// tree is a folder as one text.
func tree(t *testing.T, folder string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		b.WriteString(path + " " + trust.Sum(data) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
