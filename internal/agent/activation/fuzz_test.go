package activation

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzInhibitors: a list of inhibitors differs from itself in nothing, from
// another in the same whichever comes first, and never in what only one has.
func FuzzInhibitors(f *testing.F) {
	for _, pair := range [][2]string{
		{`{"dbus": "/nix/store/a-dbus"}`, `{"dbus": "/nix/store/b-dbus"}`},
		{`{"dbus": "a", "kernel": "k"}`, `{"dbus": "a", "systemd": "s"}`},
		{"dbus a\n", "dbus b\n"}, {"dbus a\n", `{"dbus": "a"}`}, {`null`, `[]`}, {``, `{}`}, {`{"switch-inhibitors": "x"}`, `{}`},
	} {
		f.Add([]byte(pair[0]), []byte(pair[1]))
	}
	f.Fuzz(func(t *testing.T, one, other []byte) {
		dir := t.TempDir()
		read := func(text []byte) map[string]string {
			if err := os.WriteFile(filepath.Join(dir, inhibitorsFile), text, 0o600); err != nil {
				t.Fatal(err)
			}
			list, err := ownInhibitors(dir)
			if err != nil || list == nil {
				t.Fatalf("%q: %v, %v", text, list, err)
			}
			return list
		}
		a, b := read(one), read(other)
		if names := differing(a, a); len(names) > 0 {
			t.Fatalf("%q differs from itself in %v", one, names)
		}
		names := differing(a, b)
		if back := differing(b, a); !slices.Equal(names, back) {
			t.Fatalf("%q and %q differ in %v, and in %v", one, other, names, back)
		}
		if len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Fatalf("%v names one twice", names)
		}
		for _, name := range names {
			if name != inhibitorsFile && a[name] == b[name] {
				t.Fatalf("%q is the same in both", name)
			}
		}
	})
}
