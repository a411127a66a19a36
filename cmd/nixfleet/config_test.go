package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzConfig: settings that can be read are ones that there are, and come back
// when they are written as TOML.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"cp-url = \"https://fleet:8443\" # comment\nca-cert = 'ca.pem'\n\n# more\n", `client-key = "a\u00e9\n\"b"`, `client-cert="x"`,
		"cp-url = https://x", "cp-url = \"a\"\ncp-url = \"b\"", "url = \"x\"", "cp-url = 'a' b", "cp-url = `x`", "cp-url = \"a", "[table]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := parseConfig(text)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, key := range slices.Sorted(maps.Keys(settings)) {
			if !configKeys[key] {
				t.Fatalf("there is no %q", key)
			}
			fmt.Fprintf(&again, "%s = %q\n", key, settings[key])
		}
		if back, err := parseConfig(again.String()); err != nil || !maps.Equal(settings, back) {
			t.Fatalf("%q came back as %q: %v", settings, back, err)
		}
	})
}
