package activation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files that name a file of the store, as "→ <name>", are symlinks to it.
func TestInhibitors(t *testing.T) {
	t.Parallel()
	all := []string{"dbus", "systemd", "kernel"}
	dbus, kernel, manager := "etc/systemd/system/dbus.service", "kernel", "sw/lib/systemd/systemd"
	for _, c := range []struct {
		name          string
		running, next map[string]string
		deferOn       []string
		want          string
	}{
		{name: "two files without any of it", deferOn: all},
		{name: "the same", deferOn: all,
			running: map[string]string{dbus: "→ dbus-1", manager: "→ systemd-1", kernel: "→ kernel-1"},
			next:    map[string]string{dbus: "→ dbus-1", manager: "→ systemd-1", kernel: "→ kernel-1"}},
		{name: "all swapped", deferOn: all, want: "dbus kernel systemd",
			running: map[string]string{dbus: "→ dbus-1", manager: "→ systemd-1", kernel: "→ kernel-1"},
			next:    map[string]string{dbus: "→ dbus-2", manager: "→ systemd-2", kernel: "→ kernel-2"}},
		{name: "kernel swapped, which may be", deferOn: []string{"dbus", "systemd"},
			running: map[string]string{kernel: "→ kernel-1"}, next: map[string]string{kernel: "→ kernel-2"}},
		{name: "systemd by the system's own link", deferOn: all, want: "systemd",
			running: map[string]string{"systemd/lib/systemd/systemd": "→ systemd-1"},
			next:    map[string]string{"systemd/lib/systemd/systemd": "→ systemd-2"}},
		{name: "a container gets a kernel", deferOn: all, next: map[string]string{kernel: "→ kernel-1"}},
		{name: "a unit is gone", deferOn: all, running: map[string]string{dbus: "→ dbus-1"}},
		{name: "a link to nowhere", deferOn: all,
			running: map[string]string{dbus: "→ gone"}, next: map[string]string{dbus: "→ dbus-1"}},

		{name: "own lists, the same, kernel swapped", deferOn: all,
			running: map[string]string{inhibitorsFile: `{"dbus-implementation": "dbus"}`, kernel: "→ kernel-1"},
			next:    map[string]string{inhibitorsFile: `{"dbus-implementation": "dbus"}`, kernel: "→ kernel-2"}},
		{name: "own lists, one value differs", deferOn: nil, want: "dbus-implementation",
			running: map[string]string{inhibitorsFile: `{"dbus-implementation": "dbus", "x": "1"}`},
			next:    map[string]string{inhibitorsFile: `{"dbus-implementation": "broker", "x": "1"}`}},
		{name: "own lists, a name more and a name less",
			running: map[string]string{inhibitorsFile: `{"old": "1"}`}, next: map[string]string{inhibitorsFile: `{"new": "1"}`}},
		{name: "own lists, empty", running: map[string]string{inhibitorsFile: `{}`}, next: map[string]string{inhibitorsFile: `{}`}},
		{name: "only one has a list: the components", deferOn: all, want: "kernel",
			running: map[string]string{kernel: "→ kernel-1"}, next: map[string]string{inhibitorsFile: `{}`, kernel: "→ kernel-2"}},
		{name: "lists of lines, the same",
			running: map[string]string{inhibitorsFile: "/nix/store/a\n"}, next: map[string]string{inhibitorsFile: "/nix/store/a\n"}},
		{name: "lists of lines", want: inhibitorsFile,
			running: map[string]string{inhibitorsFile: "/nix/store/a\n"}, next: map[string]string{inhibitorsFile: "/nix/store/b\n"}},
		{name: "a list of lines and an object", want: inhibitorsFile,
			running: map[string]string{inhibitorsFile: "/nix/store/a\n"}, next: map[string]string{inhibitorsFile: `{"a": "b"}`}},
		{name: "null is no object", want: inhibitorsFile,
			running: map[string]string{inhibitorsFile: "null"}, next: map[string]string{inhibitorsFile: "[]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			plant(t, filepath.Join(dir, "store"), map[string]string{
				"dbus-1": "", "dbus-2": "", "systemd-1": "", "systemd-2": "", "kernel-1": "", "kernel-2": ""})
			plant(t, filepath.Join(dir, "running"), c.running)
			plant(t, filepath.Join(dir, "next"), c.next)
			for _, way := range [][2]string{{"running", "next"}, {"next", "running"}} { // the way back is as the way
				got, err := Inhibitors(filepath.Join(dir, way[0]), filepath.Join(dir, way[1]), c.deferOn)
				if err != nil || strings.Join(got, " ") != c.want {
					t.Errorf("from %s to %s: %q, %v; want %q", way[0], way[1], got, err, c.want)
				}
			}
		})
	}
}

func plant(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(text, "→ "); link {
			err = os.Symlink(filepath.Join(filepath.Dir(dir), "store", target), path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnreadableInhibitorsAreAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plant(t, filepath.Join(dir, "closure"), map[string]string{inhibitorsFile + "/folder": ""})
	if got, err := Inhibitors(filepath.Join(dir, "closure"), dir, nil); err == nil {
		t.Errorf("%q", got)
	}
	if got, err := Inhibitors(dir, filepath.Join(dir, "closure"), nil); err == nil {
		t.Errorf("%q", got)
	}
}
