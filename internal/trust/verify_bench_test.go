package trust_test

import (
	"fmt"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// largeManifest is the manifest of n hosts, as a release writes it.
func largeManifest(tb testing.TB, n int, s trust.Signer, signedAt time.Time) (doc, sig []byte) {
	tb.Helper()
	f := &fleet.Fleet{
		SchemaVersion:   1,
		Hosts:           map[string]fleet.Host{},
		Channels:        map[string]fleet.Channel{"stable": {RolloutPolicy: "all", FreshnessWindow: 1440}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{"all": {Policy: fleet.DefaultPolicy()}},
	}
	for i := range n {
		name := fmt.Sprintf("host-%05d.lan", i)
		closure := fleet.Closure(fmt.Sprintf("%032d-nixos-system-%s-26.05.20261123", i, name))
		f.Hosts[name] = fleet.Host{System: "x86_64-linux", Channel: "stable", ClosureHash: &closure}
	}
	manifests, err := fleet.Project(f, fleet.Release{
		FleetHash: trust.Sum(nil),
		Ref:       "0123456789abcdef0123456789abcdef01234567",
		Meta:      fleet.Meta{SchemaVersion: 1, SignedAt: &signedAt},
	})
	if err != nil {
		tb.Fatal(err)
	}
	if doc, err = trust.Encode(manifests[0]); err != nil {
		tb.Fatal(err)
	}
	if sig, err = trust.SignDocument(doc, s); err != nil {
		tb.Fatal(err)
	}
	return doc, sig
}

// The budget is 15 ms and, with the document itself, 12 MiB at the peak. B/op is
// above the peak: it counts what the collector has freed on the way.
func BenchmarkVerifyManifest10k(b *testing.B) {
	s := newSigner(b)
	doc, sig := largeManifest(b, 10_000, s, noon)
	public := s.Public()
	slot := trust.Slot{Current: &public}
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := trust.VerifyManifest(doc, sig, slot, noon, 0, trust.Mark{}, trust.Expect{Host: "host-00042.lan"}); err != nil {
			b.Fatal(err)
		}
	}
}
