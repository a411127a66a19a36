package rollout_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"nixfleet/internal/rollout"
)

// FuzzAction: an action out of the log comes back from its JSON as it went, and
// one that does not fit the world is refused.
func FuzzAction(f *testing.F) {
	for _, doc := range []string{
		`{"kind":"forgotten","at":"2026-11-23T10:00:00Z","ready":5,"body":{"host":"h","who":"ada","why":"sold"}}`,
		`{"kind":"remembered","body":{"host":"h"}}`,
		`{"kind":"paused","at":"2026-11-23T10:00:00Z","ready":5,"body":{"channel":"c","who":"ada","why":"x"}}`,
		`{"kind":"opened","at":"2026-11-23T10:00:00Z","ready":5,"body":{"fleetHash":"x","rollouts":[{"id":"c@1","channel":"c","planHash":"p"}]}}`,
		`{"kind":"delivered","body":{"rollout":"c@1","host":"h"}}`,
		`{"kind":"quarantine-cleared","body":{"channel":"c","closure":"x"}}`,
		`{"kind":"recovering","body":{"why":"x"}}`, `{"kind":"recovered","body":{}}`,
		`{"kind":"lost","body":{"host":1}}`, `{"kind":"invented","body":{}}`, `{"kind":"moved","body":null}`, `{}`, `null`,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var a rollout.Action
		if json.Unmarshal(doc, &a) != nil || a.Body == nil {
			return
		}
		first, err := json.Marshal(a)
		if err != nil {
			return // a year that no date in JSON has
		}
		var back rollout.Action
		if err := json.Unmarshal(first, &back); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, first)
		}
		if second, err := json.Marshal(back); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("came back otherwise: %v\n%s\n%s", err, first, second)
		}
		w := rollout.NewWorld()
		before, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if rollout.Apply(w, a) == nil {
			return
		}
		if after, err := json.Marshal(w); err != nil || !bytes.Equal(before, after) {
			t.Fatalf("%s was refused, and changed something: %v\n%s", first, err, after)
		}
	})
}
