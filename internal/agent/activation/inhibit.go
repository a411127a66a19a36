package activation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// Method is how the target gets to run: it is made live, or, where something
// differs that may not be swapped under a running system, booted into.
func Method(m host.Machine, running fleet.Closure, s Spec) (string, error) {
	inhibited, err := inhibitors(m, running, s.Target, s.DeferOn)
	if err != nil {
		return "", err
	}
	if len(inhibited) > 0 {
		return lifecycle.MethodBoot, nil
	}
	return lifecycle.MethodTestThenBoot, nil
}

// inhibitors are those of two closures of a machine. Nothing is known about a
// running system that is none.
func inhibitors(m host.Machine, running, next fleet.Closure, deferOn []string) ([]string, error) {
	if running == "" {
		return nil, nil
	}
	return Inhibitors(m.Path(running), m.Path(next), deferOn)
}

// components may not be swapped under a running system, where its closures do not
// say themselves what may not. Each is one of the files, compared by where its
// links lead.
var components = []struct {
	name  string
	files []string
}{
	{"dbus", []string{"etc/systemd/system/dbus.service"}},
	{"systemd", []string{"sw/lib/systemd/systemd", "systemd/lib/systemd/systemd"}},
	{"kernel", []string{"kernel"}},
}

// Inhibitors names, sorted, what keeps the closure in the folder next from being
// made live while the one in the folder running runs. When both have a list of
// their own it is that, because their switch program refuses by it; else those of
// the components in deferOn that differ.
func Inhibitors(running, next string, deferOn []string) ([]string, error) {
	have, err := ownInhibitors(running)
	if err != nil {
		return nil, err
	}
	want, err := ownInhibitors(next)
	if err != nil {
		return nil, err
	}
	if have != nil && want != nil {
		return differing(have, want), nil
	}
	var names []string
	for _, c := range components {
		if !slices.Contains(deferOn, c.name) {
			continue
		}
		swapped, err := swaps(running, next, c.files)
		if err != nil {
			return nil, err
		}
		if swapped {
			names = append(names, c.name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// inhibitorsFile is a closure's own list: an object of strings.
const inhibitorsFile = "switch-inhibitors"

// ownInhibitors reads a closure's list, nil when there is none. The first NixOS
// that had one wrote lines, all of which count as one.
func ownInhibitors(closure string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(closure, inhibitorsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the switch inhibitors: %w", err)
	}
	list := map[string]string{}
	if json.Unmarshal(text, &list) != nil || list == nil {
		return map[string]string{inhibitorsFile: string(text)}, nil
	}
	return list, nil
}

// differing are the names that both have, with another value. What only one has
// never inhibits. A list that is not an object differs from every one that is.
func differing(a, b map[string]string) []string {
	var names []string
	for name, value := range a {
		if other, both := b[name]; both && other != value {
			names = append(names, name)
		}
	}
	_, linesA := a[inhibitorsFile]
	_, linesB := b[inhibitorsFile]
	if linesA != linesB {
		names = append(names, inhibitorsFile)
	}
	slices.Sort(names)
	return names
}

// swaps tells whether one of the files is in both closures and is not the same.
func swaps(running, next string, files []string) (bool, error) {
	for _, file := range files {
		have, err := filepath.EvalSymlinks(filepath.Join(running, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		want, err := filepath.EvalSymlinks(filepath.Join(next, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if have != want {
			return true, nil
		}
	}
	return false, nil
}

// bootedOnly says why something can only be booted into.
func bootedOnly(inhibited []string) string {
	return strings.Join(inhibited, ", ") + " may not be swapped while the system runs"
}
