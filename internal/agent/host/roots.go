package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

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
		if err := ReplaceLink(filepath.Join(dir, string(c)), target(c)); err != nil {
			return fmt.Errorf("add a GC root: %w", err)
		}
	}
	return syncDir(dir)
}

// ReplaceLink makes a symlink in place of whatever link was there: a reader sees
// the old one or the new one, also after a power cut.
func ReplaceLink(path, target string) error {
	tmp := path + ".new"
	err := os.Symlink(target, tmp)
	if errors.Is(err, os.ErrExist) { // left by a crash, or another's just now
		err = errors.Join(os.Remove(tmp), os.Symlink(target, tmp))
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
