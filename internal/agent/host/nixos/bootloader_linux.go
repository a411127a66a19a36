package nixos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// loaderReader says which closure a boot loader boots next, from the loader's own
// files below root. present is false when this loader is not in use.
type loaderReader func(root string) (next fleet.Closure, present bool, err error)

// bootDefault asks the boot loader in use. verified is false when none of the
// known ones is.
func (m *Machine) bootDefault() (next fleet.Closure, verified bool, err error) {
	for _, read := range []loaderReader{readDefaultSystem} {
		next, present, err := read(m.root)
		if err != nil {
			return "", false, fmt.Errorf("read the boot default: %w", err)
		}
		if present {
			return next, true, nil
		}
	}
	return "", false, nil
}

// readDefaultSystem reads /boot/default-system, one line with the store path that
// is booted next: for machines without a boot loader of their own, such as
// containers, whose "boot" writes that file and whose starter reads it.
func readDefaultSystem(root string) (fleet.Closure, bool, error) {
	text, err := os.ReadFile(filepath.Join(root, "boot", "default-system"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	base, err := nix.ParsePath(strings.TrimSpace(string(text)))
	if err != nil {
		return "", true, fmt.Errorf("/boot/default-system: %w", err)
	}
	return fleet.Closure(base), true, nil
}
