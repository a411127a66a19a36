package trust_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// FuzzMarks: marks that can be read come back from their file as they went, and
// joining them with others never lowers any.
func FuzzMarks(f *testing.F) {
	for _, text := range []string{
		`{}`,
		`{"manifest": {"signedAt": "2026-11-23T09:00:00Z", "hash": "ab"}, "clockFloor": "2026-11-23T10:00:00Z", "chainLength": 7, "chainHead": "cd"}`,
		`{"channels": {"stable": {"signedAt": "2026-11-23T09:00:00.5Z"}}, "fleet": {}, "new": 1}`,
		`{"clockFloor": "9999-12-31T23:59:59Z", "chainLength": -1}`,
		`{"manifest": null}`, `[]`, ``, `{"manifest": {"signedAt": "yesterday"}}`,
	} {
		f.Add([]byte(text), []byte(`{"manifest": {"signedAt": "2026-11-23T09:30:00Z"}, "channels": {"edge": {"signedAt": "2026-11-23T09:00:00Z"}}}`))
	}
	load := func(t *testing.T, path string, text []byte) (trust.Marks, error) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return trust.LoadMarks(path)
	}
	f.Fuzz(func(t *testing.T, text, others []byte) {
		path := filepath.Join(t.TempDir(), "marks.json")
		m, err := load(t, path, text)
		if err != nil {
			return
		}
		if err := m.Save(path); err != nil {
			return // a year that no date in JSON has
		}
		back, err := trust.LoadMarks(path)
		if err != nil || back.Floor(time.Time{}) != m.Floor(time.Time{}) || !reflect.DeepEqual(back.Higher(back), back) {
			t.Fatalf("came back as %+v, was %+v: %v", back, m, err)
		}
		o, err := load(t, path, others)
		if err != nil {
			return
		}
		for _, joined := range []trust.Marks{m.Higher(o), o.Higher(m)} {
			for _, of := range []trust.Marks{m, o} {
				if joined.Floor(time.Time{}).Before(of.Floor(time.Time{})) || joined.Manifest.SignedAt.Before(of.Manifest.SignedAt) ||
					joined.ClockFloor.Before(of.ClockFloor) || joined.ChainLength < of.ChainLength {
					t.Fatalf("%+v joined with %+v is %+v", m, o, joined)
				}
				for channel, mark := range of.Channels {
					if joined.Channels[channel].SignedAt.Before(mark.SignedAt) {
						t.Fatalf("channel %q: %+v joined with %+v is %+v", channel, m, o, joined)
					}
				}
			}
		}
	})
}

// FuzzRestamp: a manifest that is signed again is the same plan, with another date.
func FuzzRestamp(f *testing.F) {
	for _, name := range []string{"manifest-ok", "manifest-refreshed", "manifest-republished", "fleet-ed25519", "manifest-duplicate-name"} {
		f.Add(vector(f, name+".json"))
	}
	f.Add([]byte(`{"meta": 1, "fleetResolvedHash": null, "x": {"meta": 2}}`))
	at := noon.Add(time.Hour)
	meta := fleet.Meta{SchemaVersion: fleet.SchemaVersion, SignedAt: &at}
	f.Fuzz(func(t *testing.T, doc []byte) {
		was, err := trust.PlanHash(doc)
		if err != nil {
			return
		}
		fresh, err := trust.Restamp(doc, meta, "ab")
		if err != nil {
			t.Fatalf("%q has a plan and cannot be signed again: %v", doc, err)
		}
		if is, err := trust.PlanHash(fresh); err != nil || is != was {
			t.Fatalf("another plan: %v\n%s\n%s", err, doc, fresh)
		}
		canonical, err := trust.Canonical(fresh)
		if err != nil || string(canonical) != string(fresh) {
			t.Fatalf("what is to be signed is not canonical: %v\n%s", err, fresh)
		}
		if again, err := trust.Restamp(fresh, meta, "ab"); err != nil || string(again) != string(fresh) {
			t.Fatalf("signed again it is another: %v\n%s\n%s", err, fresh, again)
		}
	})
}
