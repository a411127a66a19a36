package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/nix"
)

// machine is whether the machine can be looked at, and runs a system of the store.
type machine struct{ p Patient }

func (machine) name() string { return "machine" }

func (c machine) look(ctx context.Context) Finding {
	if c.p.Machine == nil {
		return wrong("run this on the host itself, as root; --host-backend says which kind it is", "%v", c.p.MachineErr)
	}
	facts, err := c.p.Machine.Facts(ctx)
	switch {
	case err != nil:
		return wrong("run this as root; look at /run/current-system and the boot loader", "%v", err)
	case facts.Current == "":
		return wrong("let the machine run a system of the store: nothing could be gone back to", "what runs is no system of the store")
	}
	return well("runs %s, boots %s", facts.Current, facts.BootDefault)
}

// nixSettings are what Nix believes when somebody else than the agent fetches.
type nixSettings struct{ p Patient }

func (nixSettings) name() string { return "nix-settings" }

func (c nixSettings) look(ctx context.Context) Finding {
	if c.p.Machine == nil {
		return skipped("the machine cannot be looked at")
	}
	m, ok := c.p.Machine.(host.HasNix)
	if !ok {
		return skipped("this kind of host has no Nix")
	}
	settings, err := m.NixSettings(ctx)
	if err != nil {
		return wrong("look at `nix config show` and the Nix daemon", "%v", err)
	}
	if !settings.RequireSigs {
		return wrong("take require-sigs = false out of Nix's settings (nix.settings.require-sigs): whatever anybody else fetches on this host is believed, and the agent finds it in the store",
			"require-sigs is false")
	}
	for _, address := range settings.Substituters {
		if nix.WithoutSignatures(address) {
			return wrong("take trusted=1 off it in Nix's settings (nix.settings.substituters), and pin the cache's key in trusted-public-keys", "the substituter %s is believed without signatures", address)
		}
	}
	return well("signatures are required of every substituter")
}

// storeSpace is the room for closures.
type storeSpace struct{ p Patient }

func (storeSpace) name() string { return "store-space" }

func (c storeSpace) look(ctx context.Context) Finding {
	return lookAtSpace(ctx, c.p, func(s host.Space) error { return activation.StoreSpace(s, c.p.Config.MinFreeNix) },
		"on the file system of /nix", "nix-collect-garbage --delete-older-than 30d, or a larger disk; --min-free-nix says how much is wanted")
}

// bootSpace is the room for kernels.
type bootSpace struct{ p Patient }

func (bootSpace) name() string { return "boot-space" }

func (c bootSpace) look(ctx context.Context) Finding {
	return lookAtSpace(ctx, c.p, func(s host.Space) error { return activation.BootSpace(s, c.p.Config.MinFreeBoot) },
		"on the boot file system", "keep fewer generations in the boot menu (boot.loader.*.configurationLimit), or a larger boot file system; --min-free-boot says how much is wanted")
}

func lookAtSpace(ctx context.Context, p Patient, check func(host.Space) error, where, remedy string) Finding {
	if p.Machine == nil {
		return skipped("the machine cannot be looked at")
	}
	space, err := p.Machine.Space(ctx)
	if err != nil {
		return wrong("look at the file systems of /nix and /boot", "%v", err)
	}
	var wait *activation.Wait
	if err := check(space); errors.As(err, &wait) {
		return wrong(remedy, "%s %v", where, wait.Err)
	}
	return well("enough %s", where)
}

// switchLock is whether somebody switches the machine now, or seems to.
type switchLock struct{ p Patient }

func (switchLock) name() string { return "switch-lock" }

func (c switchLock) look(ctx context.Context) Finding {
	if c.p.Machine == nil {
		return skipped("the machine cannot be looked at")
	}
	locked, err := c.p.Machine.SwitchLocked(ctx)
	switch {
	case err != nil:
		return wrong("look at /proc/locks", "%v", err)
	case locked:
		return wrong("wait until the other switch ends; `lslocks` tells the process that holds switch-to-configuration.lock", "a switch of this machine is under way, or its lock is held by something that hangs")
	}
	return well("free")
}

// guardUnits are the units that bring the machine back, in what it runs now.
type guardUnits struct{ p Patient }

func (guardUnits) name() string { return "guard-units" }

func (c guardUnits) look(ctx context.Context) Finding {
	if c.p.Machine == nil {
		return skipped("the machine cannot be looked at")
	}
	facts, err := c.p.Machine.Facts(ctx)
	if err != nil || facts.Current == "" {
		return skipped("what this machine runs is not known")
	}
	if err := activation.CheckGuard(c.p.Machine.Path(facts.Current)); err != nil {
		return wrong(fmt.Sprintf("enable nixfleet in this host's system, so that %s has its units", facts.Current), "%s", strings.TrimPrefix(err.Error(), "no-guard: "))
	}
	return well("the system that runs has the units of agent and guard")
}
