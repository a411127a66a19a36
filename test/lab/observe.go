package lab

import (
	"context"
	"fmt"
	"path/filepath"
)

// Observed is what a host itself shows, by its own files.
type Observed struct {
	Current, BootDefault, Profile string // store paths
}

// Observe looks at the running host.
func (h *Host) Observe(ctx context.Context) (Observed, error) {
	var o Observed
	for _, look := range []struct {
		into *string
		argv []string
	}{
		{&o.Current, []string{"readlink", "-f", "/run/current-system"}},
		{&o.BootDefault, []string{"cat", "/boot/default-system"}},
		{&o.Profile, []string{"readlink", "-f", "/nix/var/nix/profiles/system"}},
	} {
		var err error
		if *look.into, err = h.Exec(ctx, look.argv...); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o Observed) String() string {
	return fmt.Sprintf("current %s, boot default %s, profile %s", short(o.Current), short(o.BootDefault), short(o.Profile))
}

// On is what a host shows that is wholly on one system.
func On(system string) Observed {
	return Observed{Current: system, BootDefault: system, Profile: system}
}

// short is a store path without its directory and most of its hash.
func short(path string) string {
	name := filepath.Base(path)
	if len(name) > 33 {
		return name[:6] + "…" + name[32:]
	}
	return name
}
