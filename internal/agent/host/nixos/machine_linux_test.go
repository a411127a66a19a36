package nixos

import (
	"os"
	"path/filepath"
	"testing"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
)

const (
	v1 = fleet.Closure("1qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-nixos-system-a-1")
	v2 = fleet.Closure("2qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-nixos-system-a-2")
)

// rooted is a machine below a temporary directory, without any program.
func rooted(t *testing.T, links map[string]string, files map[string]string) *Machine {
	t.Helper()
	m := &Machine{root: t.TempDir()}
	for path, target := range links {
		if err := os.MkdirAll(filepath.Dir(m.root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, m.root+path); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(m.root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.root+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestFacts(t *testing.T) {
	links := map[string]string{
		"/run/current-system":                  v2.Path(),
		"/run/booted-system":                   "/nix/var/nix/profiles/system",
		"/nix/var/nix/profiles/system":         "system-7-link",
		"/nix/var/nix/profiles/system-7-link":  v1.Path(),
		"/nix/var/nix/profiles/system-10-link": v2.Path(),
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  host.Facts
	}{
		"with a loader": {map[string]string{"/boot/default-system": v2.Path() + "\n"},
			host.Facts{Current: v2, Booted: v1, Profile: v1, Generation: 7, BootDefault: v2, BootDefaultVerified: true}},
		"without": {nil,
			host.Facts{Current: v2, Booted: v1, Profile: v1, Generation: 7, BootDefault: v1}},
	} {
		got, err := rooted(t, links, c.files).Facts(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.BootID == "" || got.System == "" {
			t.Errorf("%s: %+v", name, got)
		}
		got.BootID, got.System = "", ""
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got, err := rooted(t, nil, nil).Facts(t.Context()); err != nil || got.Current != "" || got.BootDefault != "" {
		t.Errorf("of an empty machine: %+v, %v", got, err)
	}
	loop := map[string]string{"/run/current-system": "/run/loop", "/run/loop": "/run/current-system"}
	if got, err := rooted(t, loop, nil).Facts(t.Context()); err == nil {
		t.Errorf("of a loop: %+v", got)
	}
	half := map[string]string{"/boot/default-system": "half a pa"}
	if got, err := rooted(t, links, half).Facts(t.Context()); err != nil || got.BootDefault != v1 || got.BootDefaultVerified {
		t.Errorf("of a broken loader: %+v, %v", got, err)
	}
}

func TestSetRoots(t *testing.T) {
	m := rooted(t, map[string]string{
		rootsDir + "/r1":       v1.Path(),
		rootsDir + "/r2":       v2.Path(),
		rootsDir + "/" + "old": "/nix/store/3qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-old",
	}, map[string]string{v1.Path() + "/system": "x", v2.Path() + "/system": "x"})
	for _, want := range [][]fleet.Closure{{v1}, {v1, v2}, {v2, "4qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-absent"}, {}} {
		if err := m.SetRoots(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		links, err := filepath.Glob(m.root + rootsDir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		held := make(map[string]bool)
		for _, l := range links {
			target, err := os.Readlink(l)
			if err != nil {
				t.Fatal(err)
			}
			held[target] = true
		}
		for _, c := range []fleet.Closure{v1, v2} {
			wanted := false
			for _, w := range want {
				wanted = wanted || w == c
			}
			if held[c.Path()] != wanted {
				t.Errorf("SetRoots(%v): %s is held: %v", want, c, held[c.Path()])
			}
		}
		if len(held) > 2 {
			t.Errorf("SetRoots(%v) holds %v", want, held)
		}
	}
}

func TestSpaceAndSync(t *testing.T) {
	m := rooted(t, nil, map[string]string{"/nix/store/x": "", "/boot/x": ""})
	if s, err := m.Space(t.Context()); err != nil || s.Store == 0 || s.Boot == 0 || !s.BootKnown {
		t.Errorf("%+v, %v", s, err)
	}
	if err := m.SyncBoot(t.Context()); err != nil {
		t.Error(err)
	}
	container := rooted(t, nil, map[string]string{"/nix/store/x": ""})
	if s, err := container.Space(t.Context()); err != nil || s.BootKnown {
		t.Errorf("%+v, %v", s, err)
	}
	if err := container.SyncBoot(t.Context()); err != nil {
		t.Error(err)
	}
}
