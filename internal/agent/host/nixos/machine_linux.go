package nixos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// Options are for tests; the zero value is the host that this program runs on.
type Options struct {
	Root string   // in place of "/"
	Env  []string // beyond what Nix programs are given anyway
}

// Machine is the host that this program runs on.
type Machine struct {
	root     string
	env      []string
	programs map[string]string // by name

	mu   sync.Mutex
	said map[host.Slot]said // by the slot's last run that has ended
}

var (
	_ host.Machine = (*Machine)(nil)
	_ host.HasNix  = (*Machine)(nil)
)

const (
	rootsDir   = "/nix/var/nix/gcroots/nixfleet"
	profileDir = "/nix/var/nix/profiles"
	profile    = profileDir + "/system"
)

// Open finds the programs that the backend needs. It does not need systemd yet.
func Open(o Options) (*Machine, error) {
	m := &Machine{root: o.Root, env: append(nixEnv(), o.Env...), programs: make(map[string]string), said: make(map[host.Slot]said)}
	for _, name := range []string{"nix", "nix-store", "nix-env", "journalctl"} {
		path, err := findProgram(name)
		if err != nil {
			return nil, fmt.Errorf("%s is neither in PATH nor where NixOS has it: is this a host with Nix and systemd?", name)
		}
		m.programs[name] = path
	}
	return m, nil
}

func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	return exec.LookPath("/run/current-system/sw/bin/" + name)
}

// nixEnv is what a Nix program is given of our environment: where it finds its
// settings, certificates and proxies. Its language is fixed, because its errors
// are told apart by their words.
func nixEnv() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{
		"PATH", "HOME", "TMPDIR", "NIX_REMOTE", "NIX_CONF_DIR", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE",
		"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
	} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Close has nothing to end: connections live as long as the call that made them.
func (m *Machine) Close() error { return nil }

// Path is the closure's store path.
func (m *Machine) Path(c fleet.Closure) string { return m.root + c.Path() }

// Facts reads links, the boot id, and the boot loader.
func (m *Machine) Facts(ctx context.Context) (host.Facts, error) {
	if err := ctx.Err(); err != nil {
		return host.Facts{}, err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return host.Facts{}, fmt.Errorf("read the boot id: %w", err)
	}
	f := host.Facts{BootID: strings.TrimSpace(string(id)), System: host.System()}
	if f.Current, err = m.closureAt("/run/current-system"); err != nil {
		return f, err
	}
	if f.Booted, err = m.closureAt("/run/booted-system"); err != nil {
		return f, err
	}
	if f.Profile, err = m.closureAt(profile); err != nil {
		return f, err
	}
	if f.Generation, err = m.generation(); err != nil {
		return f, err
	}
	f.BootDefault, f.BootDefaultVerified, err = m.bootDefault()
	if err == nil && !f.BootDefaultVerified {
		f.BootDefault = f.Profile
	}
	return f, err
}

// linksMax is more than any way from a well-known name to the store takes.
const linksMax = 16

// closureAt follows symlinks until one leads into the store; "" when none does.
func (m *Machine) closureAt(path string) (fleet.Closure, error) {
	for range linksMax {
		target, err := os.Readlink(m.root + path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) { // EINVAL: no symlink
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		if base, err := nix.ParsePath(target); err == nil {
			return fleet.Closure(base), nil
		}
		path = target
	}
	return "", fmt.Errorf("%s: too many symlinks", path)
}

// generation is the number in the name that the system profile points to.
func (m *Machine) generation() (int, error) {
	link, err := os.Readlink(m.root + profile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscanf(filepath.Base(link), "system-%d-link", &n); err != nil {
		return 0, nil // not made by nix-env; it has no number
	}
	return n, nil
}

// SetRoots keeps direct links: indirect roots on a root file system that is lost
// at reboot vanish with it.
func (m *Machine) SetRoots(ctx context.Context, want []fleet.Closure) error {
	dir := m.root + rootsDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of GC roots: %w", err)
	}
	present := func(c fleet.Closure) bool {
		_, err := os.Lstat(m.Path(c))
		return err == nil
	}
	return host.KeepRoots(dir, want, present, fleet.Closure.Path)
}

// Space asks the file systems of the store and of /boot.
func (m *Machine) Space(ctx context.Context) (host.Space, error) {
	var s host.Space
	free, err := freeBytes(m.root + nix.StoreDir)
	if err != nil {
		return s, fmt.Errorf("free space of the store: %w", err)
	}
	s.Store = free
	free, err = freeBytes(m.root + "/boot")
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil // a container
	}
	if err != nil {
		return s, fmt.Errorf("free space of /boot: %w", err)
	}
	s.Boot, s.BootKnown = free, true
	return s, nil
}

func freeBytes(path string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// SwitchLocked looks for a flock of switch-to-configuration's lock file.
func (m *Machine) SwitchLocked(ctx context.Context) (bool, error) {
	return host.Flocked(m.root + "/run/nixos/switch-to-configuration.lock")
}

// SetProfile runs nix-env --set, which takes the highest generation again when it
// is the closure's, and makes a new one otherwise: boot loaders with a limit on
// generations offer only the highest.
func (m *Machine) SetProfile(ctx context.Context, c fleet.Closure) (int, error) {
	if err := nix.CheckBase(string(c)); err != nil {
		return 0, err
	}
	if _, err := m.run(ctx, command{name: "nix-env", args: []string{"--profile", m.root + profile, "--set", c.Path()}}); err != nil {
		return 0, fmt.Errorf("set the profile: %w", err)
	}
	if err := syncFS(m.root + profileDir); err != nil {
		return 0, fmt.Errorf("set the profile: %w", err)
	}
	now, err := m.closureAt(profile)
	if err != nil {
		return 0, err
	}
	if now != c {
		return 0, fmt.Errorf("set the profile: nix-env succeeded, but it is %s", now)
	}
	return m.generation()
}

// SyncBoot makes what a boot loader's installer wrote durable: not all of them
// do. EFI system partitions are often mounted below or beside /boot.
func (m *Machine) SyncBoot(ctx context.Context) error {
	for _, dir := range []string{"/boot", "/boot/efi", "/efi"} {
		if err := syncFS(m.root + dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return nil
}

// syncFS writes out the file system that a directory is on.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() // only read
	return unix.Syncfs(int(d.Fd()))
}
