package wire_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nixfleet/internal/wire"
)

// FuzzMessages: every message of the protocol (orders, rejects, heartbeats,
// answers, errors, views) that can be read comes back from its JSON as it went.
func FuzzMessages(f *testing.F) {
	examples := messages()
	names := slices.Sorted(maps.Keys(examples))
	for i, name := range names {
		raw, err := json.Marshal(examples[name])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), raw)
	}
	f.Fuzz(func(t *testing.T, which byte, raw []byte) {
		name := names[int(which)%len(names)]
		kind := reflect.TypeOf(examples[name])
		read := func(raw []byte) (any, error) {
			v := reflect.New(kind).Interface()
			return v, json.Unmarshal(raw, v)
		}
		v, err := read(raw)
		if err != nil {
			return
		}
		first, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s that was read cannot be written: %v", name, err)
		}
		back, err := read(first)
		if err != nil {
			t.Fatalf("%s that was written cannot be read: %v\n%s", name, err, first)
		}
		if second, err := json.Marshal(back); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s came back otherwise (%v):\n%s\n%s", name, err, first, second)
		}
	})
}

// FuzzFill: a value in a path arrives as it was, or, with a slash in it, nowhere.
func FuzzFill(f *testing.F) {
	for _, value := range []string{"web-01", "stable@ab.2", "..", ".", "a/b", "a%2Fb", "?x", "#", "é\x00", "//", "../web-01", ""} {
		f.Add(value)
	}
	var got []string
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PathHostForget, func(_ http.ResponseWriter, r *http.Request) { got = append(got, r.PathValue("host")) })
	f.Fuzz(func(t *testing.T, value string) {
		got = nil
		r, err := http.NewRequest(http.MethodPost, "https://fleet"+wire.Fill(wire.PathHostForget, value), nil)
		if err != nil {
			t.Fatal(err)
		}
		mux.ServeHTTP(httptest.NewRecorder(), r)
		arrived := len(got) == 1 && got[0] == value
		if !arrived && (len(got) > 0 || value != "" && !strings.Contains(value, "/")) {
			t.Fatalf("%q arrives as %q by %s", value, got, r.URL)
		}
	})
}
