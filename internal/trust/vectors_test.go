package trust_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

const vectors = "testdata/vectors"

// vectorWindow is what the fleet documents of the vectors are checked with.
const vectorWindow = 1440 * time.Minute

func vector(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func vectorRoots(tb testing.TB) *trust.Roots {
	tb.Helper()
	roots, err := trust.LoadRoots(filepath.Join(vectors, "trust.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return roots
}

func vectorHashes(tb testing.TB) (hashes struct{ FleetResolvedHash, PlanHash, RolloutID, HostKeyFingerprint string }) {
	tb.Helper()
	if err := json.Unmarshal(vector(tb, "hashes.json"), &hashes); err != nil {
		tb.Fatal(err)
	}
	return hashes
}

func vectorFleet(tb testing.TB, name string, now time.Time) (trust.Verified[fleet.Fleet], error) {
	tb.Helper()
	doc, sig := vector(tb, name+".json"), vector(tb, name+".json.sig")
	return trust.Verify[fleet.Fleet](doc, sig, vectorRoots(tb).CIReleaseKey, now, vectorWindow, trust.Mark{})
}

// vectorManifest verifies one of the manifests with the fleet document that it
// was published with; accepted is empty, or the manifest that was taken before.
func vectorManifest(tb testing.TB, name string, now time.Time, accepted trust.Verified[fleet.Manifest]) (trust.Verified[fleet.Manifest], error) {
	tb.Helper()
	fleetName := "fleet-ed25519"
	if name == "manifest-refreshed" {
		fleetName = "fleet-resigned"
	}
	f, err := vectorFleet(tb, fleetName, time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	if err != nil {
		tb.Fatal(err)
	}
	doc, sig := vector(tb, name+".json"), vector(tb, name+".json.sig")
	return trust.VerifyManifest(doc, sig, vectorRoots(tb).CIReleaseKey, now, 0, accepted.Mark(), trust.Expect{
		RolloutID: vectorHashes(tb).RolloutID,
		Host:      "web-01",
		PlanHash:  accepted.PlanHash(),
		Fleet:     &f,
	})
}

// The vectors were made by other programs: what they call good is good here, and
// what they call bad is bad for the same reason.
func TestVectors(t *testing.T) {
	var cases []struct {
		Name, Kind, Expect, Why string
		Now                     time.Time
	}
	if err := json.Unmarshal(vector(t, "cases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 22 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var err error
			switch c.Kind {
			case "fleet":
				_, err = vectorFleet(t, c.Name, c.Now)
			case "manifest":
				var accepted trust.Verified[fleet.Manifest]
				if strings.Contains(c.Why, "manifest-ok was accepted") || c.Name == "manifest-refreshed" {
					if accepted, err = vectorManifest(t, "manifest-ok", c.Now, accepted); err != nil {
						t.Fatal(err)
					}
				}
				_, err = vectorManifest(t, c.Name, c.Now, accepted)
			default:
				t.Fatalf("unknown kind %s", c.Kind)
			}
			got := "ok"
			if err != nil {
				got = trust.Reason(err)
			}
			if got != c.Expect {
				t.Errorf("%s, want %s: %v (%s)", got, c.Expect, err, c.Why)
			}
		})
	}
}

func TestVectorHashes(t *testing.T) {
	want := vectorHashes(t)
	f, err := vectorFleet(t, "fleet-ed25519", noon)
	if err != nil {
		t.Fatal(err)
	}
	if f.Hash() != want.FleetResolvedHash {
		t.Errorf("fleetResolvedHash %s, want %s", f.Hash(), want.FleetResolvedHash)
	}
	m, err := vectorManifest(t, "manifest-ok", noon, trust.Verified[fleet.Manifest]{})
	if err != nil {
		t.Fatal(err)
	}
	if m.PlanHash() != want.PlanHash {
		t.Errorf("planHash %s, want %s", m.PlanHash(), want.PlanHash)
	}
	if m.Doc().ID() != want.RolloutID {
		t.Errorf("rollout id %s, want %s", m.Doc().ID(), want.RolloutID)
	}
	if hash, err := trust.PlanHash(vector(t, "manifest-ok.json")); err != nil || hash != want.PlanHash {
		t.Errorf("PlanHash %s, %v", hash, err)
	}
}

// The keys of the vectors are those that the roots pin, and sign what they pin.
func TestVectorKeys(t *testing.T) {
	slot := vectorRoots(t).CIReleaseKey
	for file, want := range map[string]*trust.Key{
		"ci-ed25519.key.pem": slot.Current, "ci-p256.key.pem": slot.Previous, "ci-next.key.pem": slot.Successor,
	} {
		s, err := trust.LoadSigner(vector(t, file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if s.Public().ID() != want.ID() {
			t.Errorf("%s is %s, the roots pin %s", file, s.Public().ID(), want.ID())
		}
		sig, err := trust.SignDocument(vector(t, "fleet-ed25519.json"), s)
		if err != nil {
			t.Fatal(err)
		}
		v, err := trust.Verify[fleet.Fleet](vector(t, "fleet-ed25519.json"), sig, slot, noon, vectorWindow, trust.Mark{})
		if err != nil || v.KeyID() != want.ID() {
			t.Errorf("%s: verified by %q, %v", file, v.KeyID(), err)
		}
	}
}

// Completed from the fleet document, a manifest of an older producer says what
// one of today says itself.
func TestVectorManifestIsCompleted(t *testing.T) {
	v, err := vectorManifest(t, "manifest-ok", noon, trust.Verified[fleet.Manifest]{})
	if err != nil {
		t.Fatal(err)
	}
	m := v.Doc()
	if m.Policy == nil || m.Policy.SoakSecs(0) != 300 || m.Policy.SoakSecs(1) != 0 || m.Policy.HealthFailureSecs != 60 {
		t.Errorf("policy %+v", m.Policy)
	}
	if m.Window() != vectorWindow || m.ComplianceMode != "disabled" || m.Attempt != 1 {
		t.Errorf("window %s, mode %q, attempt %d", m.Window(), m.ComplianceMode, m.Attempt)
	}
	if want := strings.TrimSpace(string(vector(t, "ssh_host_ed25519_key.pub"))); m.HostKeys["web-01"] != want || len(m.HostKeys) != 1 {
		t.Errorf("host keys %q", m.HostKeys)
	}
}
