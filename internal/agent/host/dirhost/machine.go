// Package dirhost is a machine that lives in a directory: for the demo, and for
// tests. It has a store, generations, a boot default, boots and units, needs no
// privileges, and does what it is told for real: closures are fetched and
// checked, and their own switch programs run, with the machine's directory in
// their environment.
//
// It promises what host.Machine promises. It needs a directory of its own, on a
// file system with symlinks. It never changes anything outside of it.
//
//	boot/default                     the boot default: one store path, in a line
//	nix/store/<closure>              closures, as they were fetched
//	nix/var/nix/db/<closure>.narinfo what is valid, and who signed it
//	nix/var/nix/profiles/system      generations, as nix-env makes them
//	nix/var/nix/gcroots/nixfleet/    what must not be collected
//	run/                             what a boot begins anew
//	run/boot-id
//	run/current-system               set by the closure's switch program
//	run/agent                        who is the agent
//	run/failed-units                 one name a line, written by it when it likes
//	run/units/<slot>/                what runs or ran
//
// A closure is a folder with bin/switch-to-configuration, which finds the
// machine in $NIXFLEET_ROOT: with "test" it points run/current-system at itself,
// with "boot" it writes itself to boot/default.
package dirhost

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/durable"
	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// Options are what a Machine may be given beyond its directory.
type Options struct {
	// Dial reaches binary caches. Nil: a plain dialler.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Runner runs units. Nil: Processes, which outlive this program.
	Runner Runner
}

// Machine is the machine in a directory. Several Machines of one directory, in
// one program or in several, see the same machine.
type Machine struct {
	dir    string // absolute
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	runner Runner

	agentDown atomic.Pointer[os.File] // the agent's place, while StopAgent keeps it
}

var _ host.Machine = (*Machine)(nil)

// Open opens the machine in an existing directory, which may be empty.
func Open(dir string, o Options) (*Machine, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, dial: o.Dial, runner: o.Runner}
	if m.runner == nil {
		m.runner = Processes{}
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("machine in a directory: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("machine in a directory: %s is a file", dir)
	}
	for _, sub := range []string{"boot", "nix/store", "nix/var/nix/db", "nix/var/nix/profiles", "nix/var/nix/gcroots/nixfleet", "run/units"} {
		if err := os.MkdirAll(m.path(sub), 0o755); err != nil {
			return nil, fmt.Errorf("machine in a directory: %w", err)
		}
	}
	if _, err := os.Stat(m.path("run/boot-id")); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(m.path("run/boot-id"), []byte(newID()+"\n"), 0o644); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Dir is the machine's directory.
func (m *Machine) Dir() string { return m.dir }

// Close has nothing to end: the machine is its files.
func (m *Machine) Close() error { return nil }

func (m *Machine) path(sub string) string { return filepath.Join(m.dir, filepath.FromSlash(sub)) }

// Path is the closure's folder.
func (m *Machine) Path(c fleet.Closure) string { return m.path("nix/store/" + string(c)) }

// Facts reads the links and files that say what runs and boots.
func (m *Machine) Facts(ctx context.Context) (host.Facts, error) {
	if err := ctx.Err(); err != nil {
		return host.Facts{}, err
	}
	id, err := os.ReadFile(m.path("run/boot-id"))
	if err != nil {
		return host.Facts{}, fmt.Errorf("read the boot id: %w", err)
	}
	f := host.Facts{BootID: strings.TrimSpace(string(id)), System: host.System()}
	if f.Current, err = m.link("run/current-system"); err != nil {
		return f, err
	}
	if f.Booted, err = m.link("run/booted-system"); err != nil {
		return f, err
	}
	if f.Profile, f.Generation, err = m.profile(); err != nil {
		return f, err
	}
	if f.BootDefault, err = m.bootDefault(); err != nil {
		return f, err
	}
	if f.BootDefaultVerified = f.BootDefault != ""; !f.BootDefaultVerified {
		f.BootDefault = f.Profile
	}
	return f, nil
}

// link is the closure that a symlink names, "" when there is none. Where the
// link points to apart from its last element does not matter: a machine's
// directory may be copied.
func (m *Machine) link(sub string) (fleet.Closure, error) {
	target, err := os.Readlink(m.path(sub))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return closureOf(target), err
}

func (m *Machine) bootDefault() (fleet.Closure, error) {
	text, err := os.ReadFile(m.path("boot/default"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return closureOf(strings.TrimSpace(string(text))), err
}

func closureOf(path string) fleet.Closure {
	base := filepath.Base(path)
	if nix.CheckBase(base) != nil {
		return ""
	}
	return fleet.Closure(base)
}

// SetRoots keeps links to the wanted closures. Nothing collects garbage here, but
// what is kept can be looked at.
func (m *Machine) SetRoots(ctx context.Context, want []fleet.Closure) error {
	present := func(c fleet.Closure) bool {
		_, err := os.Lstat(m.Path(c))
		return err == nil
	}
	target := func(c fleet.Closure) string { return "../../../../store/" + string(c) }
	return host.KeepRoots(m.path("nix/var/nix/gcroots/nixfleet"), want, present, target)
}

// Space is what is free in the directory.
func (m *Machine) Space(ctx context.Context) (host.Space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.dir, &fs); err != nil {
		return host.Space{}, fmt.Errorf("free space of %s: %w", m.dir, err)
	}
	free := uint64(fs.Bavail) * uint64(fs.Bsize)
	return host.Space{Store: free, Boot: free, BootKnown: true}, nil
}

// SwitchLocked looks for a flock of the file that real switch programs lock.
func (m *Machine) SwitchLocked(ctx context.Context) (bool, error) {
	return host.Flocked(m.path("run/nixos/switch-to-configuration.lock"))
}

// Units are those that the closure's programs call failed.
func (m *Machine) Units(ctx context.Context) (host.Units, error) {
	text, err := os.ReadFile(m.path("run/failed-units"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return host.Units{}, err
	}
	u := host.Units{Settled: true}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			u.Failed = append(u.Failed, name)
		}
	}
	slices.Sort(u.Failed)
	u.Failed = slices.Compact(u.Failed)
	return u, nil
}

// SetProfile does what nix-env --set does: the highest generation is used again
// when it is the closure's, else a new one is made.
func (m *Machine) SetProfile(ctx context.Context, c fleet.Closure) (int, error) {
	if _, err := os.Stat(m.Path(c)); err != nil {
		return 0, fmt.Errorf("set the profile: %w", err)
	}
	highest, err := m.highestGeneration()
	if err != nil {
		return 0, err
	}
	last, err := m.link("nix/var/nix/profiles/" + generationLink(highest))
	if err != nil {
		return 0, err
	}
	if last != c {
		highest++
		if err := durable.Symlink("../../../store/"+string(c), m.path("nix/var/nix/profiles/"+generationLink(highest))); err != nil {
			return 0, err
		}
	}
	return highest, durable.Symlink(generationLink(highest), m.path("nix/var/nix/profiles/system"))
}

func generationLink(n int) string { return "system-" + strconv.Itoa(n) + "-link" }

// generationOf is the number in a generation's link, 0 when it is none.
func generationOf(link string) int {
	var n int
	if _, err := fmt.Sscanf(link, "system-%d-link", &n); err != nil || link != generationLink(n) {
		return 0
	}
	return n
}

func (m *Machine) highestGeneration() (int, error) {
	entries, err := os.ReadDir(m.path("nix/var/nix/profiles"))
	if err != nil {
		return 0, err
	}
	highest := 0
	for _, e := range entries {
		highest = max(highest, generationOf(e.Name()))
	}
	return highest, nil
}

func (m *Machine) profile() (fleet.Closure, int, error) {
	link, err := os.Readlink(m.path("nix/var/nix/profiles/system"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	link = filepath.Base(link)
	c, err := m.link("nix/var/nix/profiles/" + link)
	return c, generationOf(link), err
}

// SyncBoot makes boot/default durable.
func (m *Machine) SyncBoot(ctx context.Context) error {
	f, err := os.Open(m.path("boot/default"))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), durable.SyncDir(m.path("boot")))
}

// Reboot is not supported: whoever owns the directory turns the machine on.
func (m *Machine) Reboot(ctx context.Context) error { return host.ErrNotSupported }
