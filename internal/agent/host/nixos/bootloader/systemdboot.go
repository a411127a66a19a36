package bootloader

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"nixfleet/internal/fleet"
)

// entryDirs are where systemd-boot may find entries: on the EFI system partition
// with loader.conf, and on the extended boot partition.
var entryDirs = []string{"boot/loader/entries", "efi/loader/entries", "boot/efi/loader/entries"}

// imageDirs hold unified kernel images, which are entries without a file.
var imageDirs = []string{"boot/EFI/Linux", "efi/EFI/Linux", "boot/efi/EFI/Linux"}

// systemdBoot chooses as systemd-boot does: what was asked for once, what was
// chosen in the menu, loader.conf's preferred, its default, the first entry.
func systemdBoot(root fs.FS, config string) (fleet.Closure, error) {
	text, err := read(root, config)
	if err != nil {
		return "", err
	}
	entries, err := bootEntries(root)
	if err != nil {
		return "", err
	}
	wishes, err := bootWishes(root, keyValues(text))
	if err != nil {
		return "", err
	}
	for _, w := range wishes {
		e, err := w.of(entries)
		if err != nil {
			return "", err
		}
		if e != nil {
			return e.system()
		}
	}
	if len(entries) == 0 {
		return "", errors.New("there are no entries")
	}
	return entries[0].system()
}

// wish is a pattern of entries that goes before the order of all.
type wish struct {
	pattern string
	alive   bool // only entries that have not used up their tries
}

// bootWishes are the patterns that decide, most important first.
func bootWishes(root fs.FS, config map[string]string) ([]wish, error) {
	once, err := efiVariable(root, "LoaderEntryOneShot")
	if err != nil {
		return nil, err
	}
	chosen, err := efiVariable(root, "LoaderEntryDefault")
	if err != nil {
		return nil, err
	}
	if preferred, err := efiVariable(root, "LoaderEntryPreferred"); err != nil || preferred != "" {
		return nil, errors.Join(err, errors.New("the EFI variable LoaderEntryPreferred is set"))
	}
	var wishes []wish
	for _, w := range []wish{{once, false}, {chosen, false}, {config["preferred"], true}, {config["default"], false}} {
		if strings.HasPrefix(w.pattern, "@") {
			return nil, fmt.Errorf("the entry %.100q depends on what was booted before", w.pattern)
		}
		if w.pattern != "" {
			wishes = append(wishes, w)
		}
	}
	return wishes, nil
}

// of is the first entry that the pattern means, nil when there is none.
func (w wish) of(entries []bootEntry) (*bootEntry, error) {
	for i := range entries {
		e := &entries[i]
		if w.alive && e.triesLeft == 0 {
			continue
		}
		for _, name := range []string{e.id, strings.TrimSuffix(e.id, path.Ext(e.id))} {
			match, err := path.Match(strings.ToLower(w.pattern), name)
			if err != nil {
				return nil, fmt.Errorf("the pattern %.100q: %w", w.pattern, err)
			}
			if match {
				return e, nil
			}
		}
	}
	return nil, nil
}

// bootEntry is one entry of the menu.
type bootEntry struct {
	id        string // its file's name in lower case, without the counters of tries
	triesLeft int    // uncounted when tries are not counted
	values    map[string]string
	options   []string // the words of the kernel's command line
	image     bool     // a unified kernel image
}

const uncounted = -1

func (e *bootEntry) system() (fleet.Closure, error) {
	if e.image {
		return "", fmt.Errorf("%.100q is a unified kernel image", e.id)
	}
	c, err := initOf(e.options)
	if err != nil {
		return "", fmt.Errorf("%.100q: %w", e.id, err)
	}
	return c, nil
}

// bootEntries are all entries in the order of the menu.
func bootEntries(root fs.FS) ([]bootEntry, error) {
	var all []bootEntry
	err := eachFile(root, entryDirs, ".conf", func(name string) error {
		text, err := read(root, name)
		if err != nil {
			return err
		}
		e := newBootEntry(path.Base(name))
		e.values = keyValues(text)
		e.options = strings.Fields(e.values["options"])
		all = append(all, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachFile(root, imageDirs, ".efi", func(name string) error {
		e := newBootEntry(path.Base(name))
		e.image = true
		all = append(all, e)
		return nil
	})
	slices.SortStableFunc(all, compareEntries)
	return all, err
}

func eachFile(root fs.FS, dirs []string, ext string, do func(name string) error) error {
	for _, dir := range dirs {
		files, err := fs.ReadDir(root, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if strings.HasPrefix(f.Name(), ".") || !strings.EqualFold(path.Ext(f.Name()), ext) {
				continue
			}
			if err := do(path.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// newBootEntry reads a file's name: <id>[+<left>[-<done>]].conf.
func newBootEntry(file string) bootEntry {
	e := bootEntry{id: strings.ToLower(file), triesLeft: uncounted}
	ext := path.Ext(e.id)
	name, counters, counted := cutLast(strings.TrimSuffix(e.id, ext), "+")
	if !counted {
		return e
	}
	left, done, both := strings.Cut(counters, "-")
	tries, ok := number(left)
	if _, okDone := number(done); !ok || both && !okDone {
		return e // just a plus sign
	}
	e.id, e.triesLeft = name+ext, tries
	return e
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

// keyValues reads lines of a keyword and a value. Of repeated keywords the last
// value counts, but all options do.
func keyValues(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		value = strings.TrimSpace(value)
		if key == "options" && values[key] != "" {
			value = values[key] + " " + value
		}
		values[key] = value
	}
	return values
}
