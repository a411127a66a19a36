package release_test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/release"
	"nixfleet/internal/trust"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const oneHost = `{"schemaVersion":1,
 "hosts":{"a":{"system":"x86_64-linux","tags":[],"channel":"stable","closureHash":"00000000000000000000000000000001-system","pubkey":null}},
 "channels":{"stable":{"rolloutPolicy":"p","freshnessWindow":60,"compliance":{"frameworks":[],"mode":"disabled"}}},
 "rolloutPolicies":{"p":{"waves":[]}}}`

// publisher publishes into a new folder, and has published once, at noon.
func publisher(t *testing.T) release.Publisher {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	p := release.Publisher{
		Folder:    filepath.Join(t.TempDir(), "release"),
		Signer:    release.KeySigner{Signer: key},
		Slot:      trust.Slot{Current: new(key.Public())},
		Algorithm: trust.Ed25519,
	}
	r := release.Request{
		Fleet:       []byte(oneHost),
		Revocations: []byte(`{"schemaVersion":1,"revocations":[]}`),
		Nonces:      []byte(`{"schemaVersion":1,"nonces":[]}`),
		Ref:         "ab12",
		Now:         noon,
	}
	if _, err := p.Release(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return p
}

// The timer that signs again was off for longer than the window: what is stale
// then can still be signed again, or nothing would ever be fresh.
func TestStaleReleaseIsSignedAgain(t *testing.T) {
	p := publisher(t)
	late := noon.Add(40 * 24 * time.Hour)
	result, err := p.Release(t.Context(), release.Request{Now: late, Again: []string{"stable"}})
	if err != nil {
		t.Fatal(err)
	}
	if !result.SignedAt.Equal(late) || len(result.Rollouts) != 1 || result.Rollouts[0].ID != "stable@ab12.2" {
		t.Errorf("%+v", result)
	}
}

// Who can write to the folder cannot have a document signed by that.
func TestTamperedDocumentsAreNotSignedAgain(t *testing.T) {
	for _, name := range []string{release.FleetName, release.RevocationsName, release.NoncesName, release.ManifestName("stable@ab12")} {
		p := publisher(t)
		path := filepath.Join(p.Folder, name)
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tampered := strings.Replace(string(doc), "{", `{"Added":1,`, 1)
		if err := os.WriteFile(path, []byte(tampered), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err = p.Release(t.Context(), release.Request{Now: noon.Add(time.Minute)}); trust.Reason(err) != "bad-signature" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
