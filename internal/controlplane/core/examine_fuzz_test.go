package core

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"testing"
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/evidence"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// FuzzExamine: whatever a host sends as an event is refused, or has a number and
// is of that host; only what the host signed counts as signed; and a record is the
// same as itself however it is spaced.
func FuzzExamine(f *testing.F) {
	const host = "web-01"
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	docs := &Documents{keys: map[string]ed25519.PublicKey{host: key.Public().(ed25519.PublicKey)}}
	known := map[string]bool{}
	add := func(name string, event string) {
		e, hash, err := evidence.Seal(evidence.Record{
			Hostname: name, RolloutID: "stable@ab", Event: json.RawMessage(event), RecordedAt: "2026-11-23T10:00:00Z", Prev: evidence.Genesis,
		}, key)
		if err != nil {
			f.Fatal(err)
		}
		known[hash] = true
		raw, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(raw))
	}
	good, err := wire.EncodeEvent(lifecycle.Event{Seq: 1, At: time.Unix(0, 0).UTC(), Body: lifecycle.Observed{Current: "c", BootID: "b"}})
	if err != nil {
		f.Fatal(err)
	}
	add(host, string(good))
	add("web-02", string(good))
	for _, event := range []string{`{"kind":"Invented","seq":7}`, `{"kind":"Invented","seq":-7}`, `{"kind":"Observed","seq":3,"current":1}`, `{"kind":"Observed"}`, `{"seq":0}`, `null`} {
		add(host, event)
	}
	f.Add([]byte(`{"hostname":"web-01"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := docs.examine(host, raw)
		if a.err != nil {
			return
		}
		if a.event.Seq < 1 {
			t.Fatalf("number %d: %s", a.event.Seq, raw)
		}
		var envelope wire.Envelope
		if err := json.Unmarshal(raw, &envelope); err != nil || envelope.Hostname != host || a.track.host != host {
			t.Fatalf("of %q: %v", envelope.Hostname, err)
		}
		if a.signing == store.SignatureGood {
			hash, err := evidence.Verify(envelope, docs.HostKey(host))
			if err != nil || !known[hash] {
				t.Fatalf("nobody signed %s: %v", raw, err)
			}
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, raw, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if _, err := canonicalRecord(raw); err == nil && !sameRecord(raw, spaced.Bytes()) {
			t.Fatalf("with other spaces it is another record: %s", raw)
		}
	})
}
