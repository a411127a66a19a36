package journal

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzGraft: an older agent that rewrites a newer one's record loses none of what
// it does not know, and changes nothing of what it knows.
func FuzzGraft(f *testing.F) {
	for _, doc := range []string{
		`{}`,
		`{"numbered": true, "new": 1, "marks": {"clockFloor": "2026-11-23T10:00:00Z", "newer": {"a": [1.50, 1e3]}}}`,
		`{"new": {"deep": {"deeper": null}}, "quarantine": [{"newer": 1}]}`,
		`{"marks": null, "x": 12345678901234567890}`,
		`{"Numbered": true, "numbered": false}`,
		`[]`, `null`,
	} {
		f.Add([]byte(doc))
	}
	kind := reflect.TypeFor[Self]()
	f.Fuzz(func(t *testing.T, old []byte) {
		var known Self
		if json.Unmarshal(old, &known) != nil {
			return
		}
		raw, err := json.Marshal(known)
		if err != nil {
			return // a year that no date in JSON has
		}
		grafted, err := graft(old, raw, known)
		if err != nil {
			t.Fatalf("%s: %v", old, err)
		}
		var back Self
		if err := json.Unmarshal(grafted, &back); err != nil {
			t.Fatalf("cannot be read: %v\n%s", err, grafted)
		}
		if again, err := json.Marshal(back); err != nil || string(again) != string(raw) {
			t.Fatalf("what is known was changed: %v\n%s\n%s\n%s", err, old, raw, again)
		}
		// Once more changes nothing: all that can be kept is kept.
		if twice, err := graft(grafted, raw, back); err != nil || !reflect.DeepEqual(unknownFields(twice, kind), unknownFields(grafted, kind)) {
			t.Fatalf("lost the second time: %v\n%s\n%s", err, grafted, twice)
		}
		for name := range unknownFields(old, kind) {
			if _, kept := unknownFields(grafted, kind)[name]; !kept && !isKnown(name) {
				t.Fatalf("%q is lost:\n%s\n%s", name, old, grafted)
			}
		}
	})
}

// isKnown tells whether it is a field of the record: of those only what is in an
// object that is still there can be kept.
func isKnown(name string) bool {
	_, known := fields(reflect.TypeFor[Self]()).of(name)
	return known
}
