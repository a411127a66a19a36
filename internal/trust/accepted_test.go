package trust_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// kept is what a journal gives back of an entry.
func kept(t *testing.T, e trust.Entry) trust.Entry {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var again trust.Entry
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	return again
}

// A document that was accepted stays accepted, long after it is stale and after
// its key has left the trust roots.
func TestAcceptedStaysAccepted(t *testing.T) {
	o := newOwner(t)
	v := o.accept(o.manifest(noon, nil), noon.Add(time.Hour))
	again, err := trust.Accepted[fleet.Manifest](kept(t, v.Entry()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, v) {
		t.Errorf("%+v\nis not\n%+v", again, v)
	}
	if !again.VerifiedAt().Equal(noon.Add(time.Hour)) || again.KeyID() != o.signer.Public().ID() {
		t.Errorf("the verdict: %s, %s", again.VerifiedAt(), again.KeyID())
	}
	f := o.fleetDocument(noon)
	if g, err := trust.Accepted[fleet.Fleet](kept(t, f.Entry())); err != nil || !reflect.DeepEqual(g, f) {
		t.Errorf("%+v, %v", g, err)
	}
}

// A manifest that a fleet document completed is kept with that document: the
// control plane may never show it again.
func TestAcceptedKeepsWhatCompletedIt(t *testing.T) {
	o := newOwner(t)
	f := o.fleetDocument(noon)
	p := o.manifest(noon, func(m *fleet.Manifest) { m.Policy, m.FleetResolvedHash = nil, f.Hash() })
	v, err := o.verify(p, noon, trust.Mark{}, trust.Expect{Fleet: &f})
	if err != nil {
		t.Fatal(err)
	}
	again, err := trust.Accepted[fleet.Manifest](kept(t, v.Entry()))
	if err != nil || !reflect.DeepEqual(again, v) || again.Doc().Policy.AliveSecs != 77 {
		t.Errorf("%v: %+v", err, again)
	}
	// One that was complete does not carry it along.
	whole := o.manifest(noon, func(m *fleet.Manifest) { m.FleetResolvedHash = f.Hash() })
	if v, err = o.verify(whole, noon, trust.Mark{}, trust.Expect{Fleet: &f}); err != nil || v.Entry().Fleet != nil {
		t.Errorf("%v, %d bytes of fleet", err, len(v.Entry().Fleet))
	}
}

// A damaged entry is not a document, and not a panic.
func TestAcceptedRefusesDamage(t *testing.T) {
	o := newOwner(t)
	f := o.fleetDocument(noon)
	p := o.manifest(noon, func(m *fleet.Manifest) { m.Policy, m.FleetResolvedHash = nil, f.Hash() })
	v, err := o.verify(p, noon, trust.Mark{}, trust.Expect{Fleet: &f})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*trust.Entry){
		"no document":       func(e *trust.Entry) { e.Document = nil },
		"a cut document":    func(e *trust.Entry) { e.Document = e.Document[:len(e.Document)/2] },
		"another kind":      func(e *trust.Entry) { e.Document = f.Bytes() },
		"no fleet document": func(e *trust.Entry) { e.Fleet = nil },
		"a cut fleet":       func(e *trust.Entry) { e.Fleet = e.Fleet[:9] },
		"another fleet":     func(e *trust.Entry) { e.Fleet = o.fleetDocument(noon.Add(1e9)).Bytes() },
		"a broken target":   func(e *trust.Entry) { e.Document = bytes.ReplaceAll(e.Document, []byte("-system"), nil) },
	} {
		e := kept(t, v.Entry())
		change(&e)
		if again, err := trust.Accepted[fleet.Manifest](e); err == nil || trust.Reason(err) == "" {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
}

// Signing anew changes dates and keeps the rest, what nobody here knows too.
func TestRestamp(t *testing.T) {
	doc := []byte(`{"later":{"b":1,"a":"1"},"hosts":{}, "meta":{"signedAt":null},"fleetResolvedHash":"x"}`)
	got, err := trust.Restamp(doc, meta(noon), "")
	want := `{"fleetResolvedHash":"x","hosts":{},"later":{"a":"1","b":1},"meta":{"ciCommit":null,"schemaVersion":1,"signedAt":"2026-11-23T12:00:00Z"}}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	got, err = trust.Restamp(doc, meta(noon), "y")
	if err != nil || string(got) != `{"fleetResolvedHash":"y"`+want[len(`{"fleetResolvedHash":"x"`):] {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{``, `[]`, `{"a":1.0}`} {
		if got, err := trust.Restamp([]byte(bad), meta(noon), ""); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
	}
	farther := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if got, err := trust.Restamp(doc, meta(farther), ""); err == nil {
		t.Errorf("a date that JSON cannot hold became %s", got)
	}
}
