package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func invalidConfigs(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/invalid/config/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no invalid files: %v", err)
	}
	return files
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each wrong file gives the error that lies beside it.
func TestInvalidConfigs(t *testing.T) {
	for _, file := range invalidConfigs(t) {
		want := strings.TrimSpace(readFile(t, strings.TrimSuffix(file, ".toml")+".err"))
		if settings, err := parseConfig(readFile(t, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", file, settings, err, want)
		}
	}
}

// FuzzConfig: settings that can be read are ones that there are, and come back
// when they are written as TOML.
func FuzzConfig(f *testing.F) {
	for _, file := range invalidConfigs(f) {
		f.Add(readFile(f, file))
	}
	for _, text := range []string{
		"cp-url = \"https://fleet:8443\" # comment\nca-cert = 'ca.pem'\n\n# more\n", `client-key = "a\u00e9\n\"b"`, `client-cert="x"`,
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
