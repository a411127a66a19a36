package fleet_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
)

// homelab reads the fleet that most tests begin with: two channels, a canary,
// edges and budgets.
func homelab(tb testing.TB) *fleet.Fleet {
	tb.Helper()
	doc, err := os.ReadFile("testdata/homelab.json")
	if err != nil {
		tb.Fatal(err)
	}
	return parse(tb, doc)
}

func parse(tb testing.TB, doc []byte) *fleet.Fleet {
	tb.Helper()
	f := &fleet.Fleet{}
	if err := json.Unmarshal(doc, f); err != nil {
		tb.Fatal(err)
	}
	return f
}

var release = fleet.Release{
	FleetHash: strings.Repeat("ab", 32),
	Ref:       "0123456789abcdef0123456789abcdef01234567",
	Meta:      fleet.Meta{SchemaVersion: 1, SignedAt: new(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC))},
}

// project projects a fleet that has to be good.
func project(tb testing.TB, f *fleet.Fleet, r fleet.Release) map[string]fleet.Manifest {
	tb.Helper()
	manifests, err := fleet.Project(f, r)
	if err != nil {
		tb.Fatal(err)
	}
	byChannel := map[string]fleet.Manifest{}
	for _, m := range manifests {
		byChannel[m.Channel] = m
	}
	return byChannel
}

// Each file of testdata/invalid is refused by a release with the text beside it:
// every line of <name>.err is a line of the error.
func TestInvalidFleets(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid/*.json")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			doc, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".err")
			if err != nil {
				t.Fatal(err)
			}
			f := &fleet.Fleet{}
			if err = json.Unmarshal(doc, f); err == nil {
				_, err = fleet.Project(f, release)
			}
			if err == nil {
				t.Fatal("the fleet is taken")
			}
			for line := range strings.Lines(string(want)) {
				if !strings.Contains(err.Error(), strings.TrimSpace(line)) {
					t.Errorf("the error does not say\n  %sbut\n  %v", line, err)
				}
			}
			if got, lines := strings.Count(err.Error(), "\n")+1, strings.Count(string(want), "\n"); got != lines {
				t.Errorf("%d findings, want %d:\n%v", got, lines, err)
			}
		})
	}
}
