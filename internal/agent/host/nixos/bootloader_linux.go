package nixos

import (
	"errors"
	"fmt"
	"os"

	"nixfleet/internal/agent/host/nixos/bootloader"
	"nixfleet/internal/fleet"
)

// bootDefault asks the boot loader's configuration. verified is false when that
// does not say it.
func (m *Machine) bootDefault() (next fleet.Closure, verified bool, err error) {
	next, err = bootloader.Next(os.DirFS(m.root + "/"))
	var unknown *bootloader.Unknown
	if errors.As(err, &unknown) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read the boot default: %w", err)
	}
	return next, true, nil
}
