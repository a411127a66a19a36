// Package bootloader says which closure a machine boots next, by reading what its
// boot loader will read.
//
// It promises an answer only when the files leave no other: a configuration that
// this package does not fully understand, or files of two boot loaders, are
// *Unknown. It needs the machine's root as a file system. It never runs a program
// and never writes.
package bootloader

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// Unknown is an answer that the files do not give.
type Unknown struct {
	Loader string // "" when it is not even known which one
	Why    string
}

func (u *Unknown) Error() string {
	if u.Loader == "" {
		return "the boot default is not known: " + u.Why
	}
	return fmt.Sprintf("the boot default is not known: %s: %s", u.Loader, u.Why)
}

// loader is one kind of boot loader.
type loader struct {
	name   string
	config []string // where its configuration may be, most usual first
	// next is the closure that the configuration boots. Its errors are the file
	// system's, or else say what was not understood.
	next func(root fs.FS, config string) (fleet.Closure, error)
}

var loaders = []loader{
	{"default-system", []string{"boot/default-system"}, defaultSystem},
	{"systemd-boot", []string{"boot/loader/loader.conf", "efi/loader/loader.conf", "boot/efi/loader/loader.conf"}, systemdBoot},
	{"grub", []string{"boot/grub/grub.cfg"}, grub},
	{"extlinux", []string{"boot/extlinux/extlinux.conf"}, extlinux},
}

// Next is the closure that the machine with the given root boots next. Its error
// is an *Unknown, or the file system's.
func Next(root fs.FS) (fleet.Closure, error) {
	var found []loader
	var config string
	for _, l := range loaders {
		for _, name := range l.config {
			_, err := fs.Stat(root, name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", err
			}
			found, config = append(found, l), name
			break
		}
	}
	switch len(found) {
	case 0:
		return "", &Unknown{Why: "no known boot loader is configured"}
	case 1:
	default:
		return "", &Unknown{Why: fmt.Sprintf("both %s and %s are configured", found[0].name, found[1].name)}
	}
	next, err := found[0].next(root, config)
	var failed *fs.PathError
	switch {
	case err == nil:
		return next, nil
	case errors.As(err, &failed) && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return "", &Unknown{Loader: found[0].name, Why: err.Error()}
}

// defaultSystem reads one line with the store path that is booted next: for
// machines without a boot loader of their own, such as containers, whose "boot"
// writes that file and whose starter reads it.
func defaultSystem(root fs.FS, config string) (fleet.Closure, error) {
	text, err := read(root, config)
	if err != nil {
		return "", err
	}
	return closure(strings.TrimSpace(text))
}

// fileMax is more than any boot loader's configuration has.
const fileMax = 8 << 20

func read(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err != nil {
		return "", err
	}
	if len(text) > fileMax {
		return "", fmt.Errorf("%s is too long", name)
	}
	return string(text), nil
}

// initOf is the closure whose init the kernel is told to start, by the words of
// its command line.
func initOf(words []string) (fleet.Closure, error) {
	var found fleet.Closure
	for _, word := range words {
		path, ok := strings.CutPrefix(strings.Trim(word, `"`), "init=")
		if !ok {
			continue
		}
		system, ok := strings.CutSuffix(path, "/init")
		if !ok {
			return "", fmt.Errorf("init=%.100q is not a system's", path)
		}
		c, err := closure(system)
		if err != nil {
			return "", err
		}
		if found != "" && found != c {
			return "", errors.New("the kernel is given two systems")
		}
		found = c
	}
	if found == "" {
		return "", errors.New("the kernel is given no system")
	}
	return found, nil
}

func closure(path string) (fleet.Closure, error) {
	base, err := nix.ParsePath(path)
	if err != nil {
		return "", fmt.Errorf("%.100q: %w", path, err)
	}
	return fleet.Closure(base), nil
}
