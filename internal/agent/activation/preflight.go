package activation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// uplinkRecent is how long ago an uplink may have answered for the machine to be
// called connected before the switch. One that is cut off already could not tell
// whether the new system is to blame.
const uplinkRecent = time.Minute

// Preflight looks at a fetched target and at the machine, and changes nothing.
func Preflight(ctx context.Context, m host.Machine, s Spec) (lifecycle.Body, error) {
	facts, err := m.Facts(ctx)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	for _, check := range []func() error{
		func() error { return checkSystem(m.Path(s.Target), facts.System) },
		func() error { return checkProgram(m.Path(s.Target)) },
		func() error {
			if !s.Guarded {
				return nil
			}
			return CheckGuard(m.Path(s.Target))
		},
	} {
		if err := check(); err != nil {
			return lifecycle.ActivationFailed{
				ExitCode:   exitUnseen,
				StderrTail: host.Tail([]byte(err.Error())),
				Phase:      lifecycle.PhasePreflight,
			}, nil
		}
	}
	if err := checkSpace(ctx, m, s); err != nil {
		return nil, err
	}
	return nil, checkUplink(s)
}

// checkSystem refuses a closure for another platform.
func checkSystem(target, want string) error {
	have, err := os.ReadFile(filepath.Join(target, "system"))
	if err != nil {
		return fmt.Errorf("the closure does not say which platform it is for: %w", err)
	}
	if system := strings.TrimSpace(string(have)); system != want {
		return fmt.Errorf("the closure is for %.40q, this machine is %s", system, want)
	}
	return nil
}

// checkProgram refuses a closure that cannot be switched to.
func checkProgram(target string) error {
	info, err := os.Stat(filepath.Join(target, "bin", "switch-to-configuration"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the closure has no bin/switch-to-configuration: it was built as an image that cannot be switched to")
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return errors.New("the closure's bin/switch-to-configuration cannot be executed")
	case info.Size() == 0:
		return errors.New("the closure's bin/switch-to-configuration is empty")
	}
	return nil
}

// CheckGuard refuses the files of a closure without the units that keep this
// machine safe. A unit that is masked is not there.
func CheckGuard(target string) error {
	for _, unit := range []string{"nixfleet-agent.service", "nixfleet-guard.service"} {
		info, err := os.Stat(filepath.Join(target, "etc/systemd/system", unit))
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("it is masked")
		}
		if err != nil {
			return fmt.Errorf("no-guard: the closure has no %s, so nothing on it would bring this machine back "+
				"(enable nixfleet in it, or let the rollout's policy say guard: optional): %w", unit, err)
		}
	}
	return nil
}

// checkSpace waits for room: a switch that runs out of it ends somewhere in the
// middle, and a boot loader may then have half an entry.
func checkSpace(ctx context.Context, m host.Machine, s Spec) error {
	space, err := m.Space(ctx)
	if err != nil {
		return transient(ctx, "look at the free space", err)
	}
	if err := StoreSpace(space, s.MinFreeStore); err != nil {
		return err
	}
	return BootSpace(space, s.MinFreeBoot+bootFiles(m, s.Target))
}

// StoreSpace returns a *Wait when less than the wanted bytes are free where
// closures go.
func StoreSpace(space host.Space, want uint64) error {
	if space.Store < want {
		return &Wait{On: wire.WaitingOnDiskNix, Err: tooLittle(space.Store, want)}
	}
	return nil
}

// BootSpace is StoreSpace for where boot files go, if that was found.
func BootSpace(space host.Space, want uint64) error {
	if space.BootKnown && space.Boot < want {
		return &Wait{On: wire.WaitingOnDiskBoot, Err: tooLittle(space.Boot, want)}
	}
	return nil
}

func tooLittle(free, wanted uint64) error {
	const mib = 1 << 20
	return fmt.Errorf("%.1f MiB are free, %.1f are wanted", float64(free)/mib, float64(wanted)/mib)
}

// bootFiles is the size of what a boot loader would copy of a closure.
func bootFiles(m host.Machine, c fleet.Closure) (sum uint64) {
	for _, file := range []string{"kernel", "initrd"} {
		if info, err := os.Stat(filepath.Join(m.Path(c), file)); err == nil && info.Mode().IsRegular() {
			sum += uint64(info.Size())
		}
	}
	return sum
}

func checkUplink(s Spec) error {
	if s.LastUplink == nil {
		return nil
	}
	if silent := time.Since(s.LastUplink()); silent > uplinkRecent {
		return &Wait{On: wire.WaitingOnControlPlane, Err: fmt.Errorf("no uplink answered for %s", silent.Round(time.Second))}
	}
	return nil
}
