package fleet_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"nixfleet/internal/fleet"
)

var update = flag.Bool("update", false, "write the expected manifests anew")

// The whole manifest of each channel, as it is published.
func TestProjectHomelab(t *testing.T) {
	r := release
	r.Attempts = map[string]int{"edge": 3}
	for channel, m := range project(t, homelab(t), r) {
		got, err := json.Marshal(m, jsontext.Multiline(true), json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		file := "testdata/homelab-" + channel + ".golden.json"
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(want)) != string(got) {
			t.Errorf("%s:\n%s", file, got)
		}
	}
}

// A channel without hosts, and a host without a closure, are in no manifest.
func TestProjectLeavesOutWhatHasNoClosure(t *testing.T) {
	manifests := project(t, homelab(t), release)
	if got := slices.Sorted(maps.Keys(manifests)); !slices.Equal(got, []string{"edge", "stable"}) {
		t.Errorf("manifests of %q", got)
	}
	edge := manifests["edge"]
	if _, ok := edge.Target("spare"); ok {
		t.Error("a host without closure has a target")
	}
	if target, ok := edge.Target("laptop"); !ok || target.TargetClosure != "00000000000000000000000000000004-darwin-system-26.05" {
		t.Errorf("laptop: %+v, %t", target, ok)
	}
}

func TestProjectRefusesABadRef(t *testing.T) {
	r := release
	for _, ref := range []string{"", "main", "../x"} {
		r.Ref = ref
		if _, err := fleet.Project(homelab(t), r); err == nil || !strings.Contains(err.Error(), "channel edge: channel, channelRef, attempt: rollout id") {
			t.Errorf("%q: %v", ref, err)
		}
	}
	r = release
	r.FleetHash = "abc"
	if _, err := fleet.Project(homelab(t), r); err == nil || !strings.Contains(err.Error(), `fleetResolvedHash: "abc" is not a SHA-256 in hex`) {
		t.Errorf("hash: %v", err)
	}
}

// Where no resolved waves are given, the policy's selectors divide the channel.
func TestWavesFromSelectors(t *testing.T) {
	f := homelab(t)
	resolved := project(t, f, release)["stable"]
	delete(f.Waves, "stable")
	selected := project(t, f, release)["stable"]
	if !reflect.DeepEqual(resolved, selected) {
		t.Errorf("resolved %+v\nselected %+v", resolved, selected)
	}
	f.RolloutPolicies["canary"].Waves[1].Selector.All = false
	m := project(t, f, release)["stable"]
	if target, _ := m.Target("db-01"); target.WaveIndex != 2 {
		t.Errorf("a host that no wave selects is in wave %d", target.WaveIndex)
	}
}

// Seconds win over minutes, those of the resolved wave over the policy's.
func TestSoakSecsWinOverMinutes(t *testing.T) {
	f := homelab(t)
	soaks := func() []int { return project(t, f, release)["stable"].Policy.SoakSecsByWave }
	if got := soaks(); !slices.Equal(got, []int{90, 120}) {
		t.Errorf("policy's seconds: %v", got)
	}
	f.Waves["stable"][0].SoakSecs = new(7)
	if got := soaks(); !slices.Equal(got, []int{7, 120}) {
		t.Errorf("wave's seconds: %v", got)
	}
	// Waves of another number are not the policy's waves.
	f.Waves["stable"] = append(f.Waves["stable"], fleet.Wave{SoakMinutes: 1})
	f.Waves["stable"][0].SoakSecs = nil
	if got := soaks(); !slices.Equal(got, []int{300, 120, 60}) {
		t.Errorf("another number of waves: %v", got)
	}
}

func TestOverlappingWavesFirstWins(t *testing.T) {
	f := homelab(t)
	f.Waves["stable"][1].Hosts = append(f.Waves["stable"][1].Hosts, "web-01", "laptop")
	m := project(t, f, release)["stable"]
	if target, _ := m.Target("web-01"); target.WaveIndex != 0 {
		t.Errorf("web-01 is in wave %d", target.WaveIndex)
	}
	if m.Validate() != nil || len(m.HostSet) != 3 {
		t.Errorf("host set %+v", m.HostSet)
	}
	wantWarnings(t, f,
		"waves.stable[1]: host web-01 is in wave 0 already, which wins",
		"waves.stable[1]: host laptop is not in this channel and is left out")
}

func TestHostInNoWaveGoesLast(t *testing.T) {
	f := homelab(t)
	f.Edges = nil
	f.Waves["stable"][1].Hosts = []string{"web-02"}
	m := project(t, f, release)["stable"]
	target, _ := m.Target("db-01")
	if target.WaveIndex != 2 || m.Policy.SoakSecs(2) != 0 {
		t.Errorf("db-01 is in wave %d", target.WaveIndex)
	}
	wantWarnings(t, f, "hosts.db-01: no wave of channel stable lists it; it goes last, in wave 2, without soak")
}

func TestWarnings(t *testing.T) {
	wantWarnings(t, homelab(t))

	f := homelab(t)
	f.Hosts["late"] = fleet.Host{System: "x86_64-linux", Channel: "stable"}
	f.Waves["stable"][1].Hosts = append(f.Waves["stable"][1].Hosts, "late")
	f.Edges = append(f.Edges, fleet.Edge{Gates: "late", Gated: "web-02"})
	f.DisruptionBudgets = append(f.DisruptionBudgets, fleet.Budget{MaxInFlight: new(1), Selector: fleet.Selector{Tags: []string{"gpu"}}})
	f.Channels["edge"] = fleet.Channel{RolloutPolicy: "bold", FreshnessWindow: 30, SigningIntervalMinutes: 60}
	f.RolloutPolicies["bold"].RebootWindow.TZ = "Europe/Berln"
	wantWarnings(t, f,
		"channels.edge: documents are stale after 30 minutes and signed again after 60",
		`rolloutPolicies.bold.rebootWindow.tz: this machine does not know "Europe/Berln"`,
		"edges[1]: host late has no closure, so the edge holds nothing back",
		"disruptionBudgets[3]: its selector matches no host")
	if edges := project(t, f, release)["stable"].Edges; len(edges) != 1 {
		t.Errorf("edges of the manifest: %+v", edges)
	}
}

func wantWarnings(t *testing.T, f *fleet.Fleet, want ...string) {
	t.Helper()
	if got := f.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// What a manifest of today says is what one without policy is completed to.
func TestCompleteManifest(t *testing.T) {
	f := homelab(t)
	for channel, whole := range project(t, f, release) {
		old := whole
		old.Policy, old.Edges, old.ChannelEdges, old.ComplianceMode, old.FreshnessWindowMinutes, old.HostKeys = nil, nil, nil, "", 0, nil
		if err := fleet.CompleteManifest(&old, f); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(old, whole) {
			t.Errorf("%s is completed to\n%+v\nnot to\n%+v", channel, old, whole)
		}
	}
}

// Nothing that the manifest says itself is taken from the fleet.
func TestCompleteManifestKeepsWhatIsThere(t *testing.T) {
	f := homelab(t)
	m := project(t, f, release)["stable"]
	own := *m.Policy
	own.AliveSecs = 77
	m.Policy = &own
	if err := fleet.CompleteManifest(&m, &fleet.Fleet{}); err != nil || m.Policy.AliveSecs != 77 {
		t.Errorf("%v, %+v", err, m.Policy)
	}
	m.Policy, m.Edges, m.FreshnessWindowMinutes = nil, []fleet.Edge{}, 5
	m.HealthGate = fleet.HealthGate{SystemdFailedUnits: &fleet.FailedUnits{Max: 9}}
	if err := fleet.CompleteManifest(&m, f); err != nil {
		t.Fatal(err)
	}
	if len(m.Edges) != 0 || m.FreshnessWindowMinutes != 5 || m.Policy.MaxFailedUnits() != 9 {
		t.Errorf("%+v", m)
	}
}

func TestCompleteManifestNeedsItsChannelAndPolicy(t *testing.T) {
	f := homelab(t)
	m := fleet.Manifest{Channel: "beta"}
	if err := fleet.CompleteManifest(&m, f); err == nil || !strings.Contains(err.Error(), `no channel "beta"`) {
		t.Error(err)
	}
	m.Channel = "stable"
	delete(f.RolloutPolicies, "canary")
	if err := fleet.CompleteManifest(&m, f); err == nil || !strings.Contains(err.Error(), `no rollout policy "canary"`) {
		t.Error(err)
	}
}

func TestWindows(t *testing.T) {
	f := homelab(t)
	if got := f.Window(); got != 30*24*time.Hour {
		t.Errorf("the fleet's window is %s", got)
	}
	if got := f.Channels["stable"].Window(); got != 24*time.Hour {
		t.Errorf("the channel's window is %s", got)
	}
	m := fleet.Manifest{FreshnessWindowMinutes: 90}
	if m.Window() != 90*time.Minute {
		t.Errorf("the manifest's window is %s", m.Window())
	}
	m.FreshnessWindowMinutes = math.MaxInt
	if m.Window() < 200*365*24*time.Hour {
		t.Errorf("a window that no duration holds is %s", m.Window())
	}
	m.FreshnessWindowMinutes = -5
	if m.Window() != 0 {
		t.Errorf("a negative window is %s", m.Window())
	}
}

// The same fleet gives the same manifests, whatever the order in which its
// document lists things that have none; and what it gives is always in order.
func TestProjectIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		r := release
		r.Attempts = map[string]int{"a": rapid.IntRange(0, 3).Draw(t, "attempt")}
		first, err := fleet.Project(f, r)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := json.Marshal(shuffled(t, f))
		if err != nil {
			t.Fatal(err)
		}
		again := &fleet.Fleet{}
		if err := json.Unmarshal(doc, again); err != nil {
			t.Fatal(err)
		}
		second, err := fleet.Project(again, r)
		if err != nil {
			t.Fatal(err)
		}
		one, two := encode(t, first), encode(t, second)
		if one != two {
			t.Fatalf("one fleet, two projections:\n%s\n%s", one, two)
		}
		seen := map[string]bool{}
		for _, m := range first {
			if err := m.Validate(); err != nil {
				t.Fatal(err)
			}
			for _, target := range m.HostSet {
				host := f.Hosts[target.Hostname]
				if seen[target.Hostname] || host.Channel != m.Channel || *host.ClosureHash != target.TargetClosure {
					t.Fatalf("%+v of %+v", target, host)
				}
				seen[target.Hostname] = true
			}
		}
		for name, h := range f.Hosts {
			if (h.ClosureHash != nil) != seen[name] {
				t.Fatalf("host %s: in a manifest %t", name, seen[name])
			}
		}
	})
}

func encode(t *rapid.T, v any) string {
	doc, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// drawFleet draws a valid fleet of two channels.
func drawFleet(t *rapid.T) *fleet.Fleet {
	f := &fleet.Fleet{
		SchemaVersion: 1,
		Hosts:         map[string]fleet.Host{},
		Channels:      map[string]fleet.Channel{},
		RolloutPolicies: map[string]fleet.RolloutPolicy{"p": {
			Policy: fleet.DefaultPolicy(),
			Waves:  []fleet.PolicyWave{{Selector: fleet.Selector{Tags: []string{"x"}}, SoakMinutes: 1}, {Selector: fleet.Selector{TagsAny: []string{"y", "z"}}}},
		}},
		Waves: map[string][]fleet.Wave{},
	}
	channels := []string{"a", "b"}
	for _, c := range channels {
		f.Channels[c] = fleet.Channel{RolloutPolicy: "p", FreshnessWindow: 60}
	}
	tags := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), rapid.ID[string])
	names := make([]string, rapid.IntRange(0, 12).Draw(t, "hosts"))
	for i := range names {
		names[i] = fmt.Sprintf("h%d", i)
		host := fleet.Host{System: "x86_64-linux", Tags: tags.Draw(t, "tags"), Channel: rapid.SampledFrom(channels).Draw(t, "channel")}
		if rapid.IntRange(0, 4).Draw(t, "built") > 0 {
			host.ClosureHash = new(fleet.Closure(fmt.Sprintf("%032d-s", i)))
		}
		f.Hosts[names[i]] = host
	}
	if len(names) > 0 && rapid.Bool().Draw(t, "resolved") {
		some := rapid.SliceOfN(rapid.SampledFrom(names), 0, 6)
		for _, c := range channels {
			for range rapid.IntRange(1, 3).Draw(t, "waves") {
				f.Waves[c] = append(f.Waves[c], fleet.Wave{Hosts: some.Draw(t, "wave"), SoakMinutes: rapid.IntRange(0, 9).Draw(t, "soak")})
			}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "budgets") {
		f.DisruptionBudgets = append(f.DisruptionBudgets, fleet.Budget{Selector: fleet.Selector{TagsAny: tags.Draw(t, "budget")}, MaxInFlight: new(1)})
	}
	return f
}

// shuffled has the same meaning: wave lists and tags are sets.
func shuffled(t *rapid.T, f *fleet.Fleet) *fleet.Fleet {
	other := *f
	other.Waves = map[string][]fleet.Wave{}
	for channel, list := range f.Waves {
		for _, wave := range list {
			wave.Hosts = rapid.Permutation(wave.Hosts).Draw(t, "hosts' order")
			other.Waves[channel] = append(other.Waves[channel], wave)
		}
	}
	other.Hosts = map[string]fleet.Host{}
	for name, h := range f.Hosts {
		h.Tags = rapid.Permutation(h.Tags).Draw(t, "tags' order")
		other.Hosts[name] = h
	}
	return &other
}
