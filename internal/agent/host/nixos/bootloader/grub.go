package bootloader

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"nixfleet/internal/fleet"
)

// grub reads grub.cfg for its menu and its default, and grubenv for what was
// asked for once or saved.
func grub(root fs.FS, config string) (fleet.Closure, error) {
	text, err := read(root, config)
	if err != nil {
		return "", err
	}
	menu, err := parseMenu(text)
	if err != nil {
		return "", err
	}
	block, err := read(root, path.Join(path.Dir(config), "grubenv"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	chosen, err := menu.chosen(environment(block))
	if err != nil {
		return "", err
	}
	e, err := find(menu.entries, chosen)
	if err != nil {
		return "", err
	}
	c, err := initOf(e.words)
	if err != nil {
		return "", fmt.Errorf("the entry %.100q: %w", e.title, err)
	}
	return c, nil
}

// environment reads GRUB's environment block: lines of name=value, padded by #.
func environment(block string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(block) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && !strings.HasPrefix(line, "#") {
			values[name] = value
		}
	}
	return values
}

// chosen is the selector of the default entry. The configuration sets it from the
// variable next_entry when that is there, and otherwise to one value.
func (m menu) chosen(env map[string]string) (string, error) {
	var usual string
	var once bool
	for _, d := range m.defaults {
		switch {
		case d == "${next_entry}" || d == "$next_entry":
			once = true
		case usual != "" && usual != d:
			return "", fmt.Errorf("the default is set to %.100q and to %.100q", usual, d)
		default:
			usual = d
		}
	}
	if next := env["next_entry"]; once && next != "" {
		return next, nil
	}
	if usual == "${saved_entry}" || usual == "$saved_entry" {
		usual = env["saved_entry"]
	}
	if strings.Contains(usual, "$") {
		return "", fmt.Errorf("the default %.100q is a variable", usual)
	}
	if usual == "" {
		usual = "0" // as GRUB itself
	}
	return usual, nil
}

// find is the entry that a selector means: at each level of the menu, separated by
// >, an index, a title or an id.
func find(level []menuEntry, selector string) (*menuEntry, error) {
	first, rest, deeper := strings.Cut(selector, ">")
	e := pick(level, first)
	switch {
	case e == nil:
		return nil, fmt.Errorf("there is no entry %.100q", selector)
	case deeper:
		return find(e.entries, rest)
	case e.submenu:
		return nil, fmt.Errorf("the entry %.100q is a submenu", selector)
	}
	return e, nil
}

func pick(level []menuEntry, selector string) *menuEntry {
	if n, err := strconv.Atoi(selector); err == nil {
		if n < 0 || n >= len(level) {
			return nil
		}
		return &level[n]
	}
	for i, e := range level {
		if e.title == selector || e.id != "" && e.id == selector {
			return &level[i]
		}
	}
	return nil
}
