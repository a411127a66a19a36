package fleet_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
)

func seedFiles(f *testing.F, patterns ...string) {
	f.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds at %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	written, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		t.Fatalf("what was read cannot be written: %v\n%+v", err, v)
	}
	return string(written)
}

// same tells whether a value comes back from its JSON as it went.
func same[T any](t *testing.T, v T) T {
	t.Helper()
	first := text(t, v)
	var back T
	if err := json.Unmarshal([]byte(first), &back); err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, first)
	}
	if second := text(t, back); first != second {
		t.Fatalf("came back otherwise:\n%s\n%s", first, second)
	}
	return back
}

// FuzzFleet: whatever fleet is valid can be frozen under a good id, and what is frozen of it is
// valid, is of its hosts, and does not depend on how it was written.
func FuzzFleet(f *testing.F) {
	seedFiles(f, "testdata/homelab.json", "testdata/invalid/*.json", "../fleetdir/fleet.json", "../trust/testdata/vectors/fleet-*.json")
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	release := fleet.Release{FleetHash: strings.Repeat("0a", 32), Ref: "0123456789abcdef", Meta: fleet.Meta{SchemaVersion: fleet.SchemaVersion, SignedAt: &at}}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var declared fleet.Fleet
		if json.Unmarshal(doc, &declared) != nil || declared.Validate() != nil {
			return
		}
		declared.Warnings()
		manifests, err := fleet.Project(&declared, release)
		if err != nil {
			for channel := range declared.Channels {
				if _, _, _, err := fleet.ParseRolloutID(fleet.RolloutID(channel, release.Ref, 1)); err != nil {
					return // its name is too long for the release's ids
				}
			}
			t.Fatalf("a valid fleet cannot be frozen: %v\n%s", err, doc)
		}
		frozen := map[string]string{}
		for _, m := range manifests {
			if err := m.Validate(); err != nil {
				t.Fatalf("%s: %v", m.ID(), err)
			}
			for _, target := range m.HostSet {
				h, ok := declared.Hosts[target.Hostname]
				if !ok || h.Channel != m.Channel || h.ClosureHash == nil || *h.ClosureHash != target.TargetClosure {
					t.Fatalf("%s has %+v, the fleet %+v", m.ID(), target, h)
				}
				if other, twice := frozen[target.Hostname]; twice {
					t.Fatalf("%s is in %s and in %s", target.Hostname, other, m.ID())
				}
				frozen[target.Hostname] = m.ID()
				if _, found := m.Target(target.Hostname); !found {
					t.Fatalf("%s does not find its own %s", m.ID(), target.Hostname)
				}
			}
			same(t, m)
		}
		for name, h := range declared.Hosts {
			if _, ok := frozen[name]; ok != (h.ClosureHash != nil) {
				t.Fatalf("%s has a closure: %t; it is in a manifest: %t", name, h.ClosureHash != nil, ok)
			}
		}
		back := same(t, declared)
		again, err := fleet.Project(&back, release)
		if one, two := text(t, manifests), text(t, again); err != nil || one != two {
			t.Fatalf("written anew it freezes otherwise: %v\n%s\n%s", err, one, two)
		}
	})
}

// FuzzManifest: a manifest that is valid stays that when it is written, and has
// one place for each host.
func FuzzManifest(f *testing.F) {
	seedFiles(f, "testdata/*.golden.json", "../trust/testdata/vectors/manifest-*.json", "../trust/testdata/invalid/manifest/*.json")
	f.Fuzz(func(t *testing.T, doc []byte) {
		var m fleet.Manifest
		if json.Unmarshal(doc, &m) != nil {
			return
		}
		m.FillDefaults()
		valid := m.Validate() == nil
		back := same(t, m)
		if got := back.Validate() == nil; got != valid {
			t.Fatalf("valid: %t, written anew: %t (%v)", valid, got, back.Validate())
		}
		if !valid {
			return
		}
		if channel, ref, attempt, err := fleet.ParseRolloutID(m.ID()); err != nil || channel != m.Channel || ref != m.ChannelRef || attempt != max(1, m.Attempt) {
			t.Fatalf("%s is %s, %s, %d: %v", m.ID(), channel, ref, attempt, err)
		}
		for _, want := range m.HostSet {
			if got, ok := m.Target(want.Hostname); !ok || got != want {
				t.Fatalf("%s is found as %+v, want %+v", want.Hostname, got, want)
			}
			if m.Policy.SoakSecs(want.WaveIndex) < 0 {
				t.Fatalf("wave %d soaks %d s", want.WaveIndex, m.Policy.SoakSecs(want.WaveIndex))
			}
		}
		for _, b := range m.DisruptionBudgets {
			if limit := b.Limit(); limit < min(1, len(b.Hosts)) || limit > len(b.Hosts) {
				t.Fatalf("a budget of %d: %+v", limit, b)
			}
		}
		if m.Window() < 0 {
			t.Fatalf("a window of %s", m.Window())
		}
	})
}

// FuzzSelector: a selector takes a host when one of its clauses does, and a clause
// that is not there takes nobody.
func FuzzSelector(f *testing.F) {
	f.Add([]byte(`{"tags": ["web"]}`), "web-01", "stable", "web,eu")
	f.Add([]byte(`{"tags": ["web", "us"], "hosts": ["db-01"]}`), "web-01", "stable", "web,eu")
	f.Add([]byte(`{"tagsAny": ["us", "eu"], "channel": null, "all": false}`), "web-01", "stable", "web,eu")
	f.Add([]byte(`{"channel": "stable"}`), "web-01", "stable", "")
	f.Add([]byte(`{"all": true}`), "web-01", "stable", "")
	f.Fuzz(func(t *testing.T, doc []byte, name, channel, tags string) {
		var s fleet.Selector
		if json.Unmarshal(doc, &s) != nil {
			return
		}
		h := fleet.Host{Channel: channel, Tags: strings.Split(tags, ",")}
		all := len(s.Tags) > 0
		for _, tag := range s.Tags {
			all = all && slices.Contains(h.Tags, tag)
		}
		for _, tag := range s.TagsAny {
			all = all || slices.Contains(h.Tags, tag)
		}
		want := s.All || all || slices.Contains(s.Hosts, name) || s.Channel != nil && *s.Channel == channel
		if got := s.Matches(name, h); got != want {
			t.Fatalf("%s takes %s of %s with %q: %t", doc, name, channel, h.Tags, got)
		}
		if back := same(t, s); back.Matches(name, h) != want {
			t.Fatalf("%s takes otherwise when it is written anew", doc)
		}
	})
}
