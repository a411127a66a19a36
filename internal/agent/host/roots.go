package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"nixfleet/internal/durable"
	"nixfleet/internal/fleet"
)

// KeepRoots makes the links in a folder of GC roots those of the wanted closures
// and no others: what SetRoots does. A closure that has a link already, under
// whatever name, keeps it. present tells whether a closure is in the store, and
// target what a new link to it holds. It is durable when it returns.
func KeepRoots(dir string, want []fleet.Closure, present func(fleet.Closure) bool, target func(fleet.Closure) string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look at the GC roots: %w", err)
	}
	kept := make(map[fleet.Closure]bool)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		link, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("look at the GC roots: %w", err)
		}
		c := fleet.Closure(filepath.Base(link))
		if slices.Contains(want, c) {
			kept[c] = true
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove a GC root: %w", err)
		}
	}
	for _, c := range want {
		if kept[c] || !present(c) {
			continue
		}
		if err := durable.Symlink(target(c), filepath.Join(dir, string(c))); err != nil {
			return fmt.Errorf("add a GC root: %w", err)
		}
	}
	return durable.SyncDir(dir)
}
