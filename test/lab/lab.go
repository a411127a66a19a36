package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Lab is one test's set of machines, programs and caches. All of it ends with
// the test. Labs of several tests live side by side.
type Lab struct {
	T   testing.TB
	Dir string // a folder for everything that the scenario makes
}

// serial numbers hosts and control planes: all labs share one network.
var serial atomic.Int64

// Open starts an empty lab.
func Open(t testing.TB) *Lab {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "") // the test's name in it would have to be fit for a mount's options
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &Lab{T: t, Dir: dir}
}

// Host makes a machine and boots it. Prepare may change its disk before.
func (l *Lab) Host(ctx context.Context, name string, prepare func(root string) error) *Host {
	l.T.Helper()
	h, err := newHost(l.Dir, name, int(serial.Add(1)))
	if err != nil {
		l.T.Fatal(err)
	}
	l.T.Cleanup(func() {
		if l.T.Failed() {
			h.agentLog(l.T)
			_ = h.Log(l.T.Output()) // there may be none
		}
		h.keep(l.T)
		if err := h.PowerOff(); err != nil {
			l.T.Error(err)
		}
		_ = unix.Unmount(h.Root(), unix.MNT_DETACH) // a host that never started is still mounted
		_ = run("ip", "netns", "del", h.id)
	})
	if err := h.PowerOn(ctx, prepare); err != nil {
		_ = h.Log(l.T.Output())
		l.T.Fatal(err)
	}
	return h
}

// Programs are the three programs without debugging information, static, as they
// are released, or with crash points: the folder that holds them.
func (l *Lab) Programs(crashpoints bool) string {
	l.T.Helper()
	build := released
	if crashpoints {
		build = crashing
	}
	dir, err := build()
	if err != nil {
		l.T.Fatal(err)
	}
	return dir
}

var (
	released = sync.OnceValues(func() (string, error) { return buildPrograms("released") })
	working  = sync.OnceValues(buildWorkload)
	crashing = sync.OnceValues(func() (string, error) { return buildPrograms("crashing", "-tags", "crashpoints") })
)

// buildPrograms builds them once for all tests of this run.
func buildPrograms(name string, flags ...string) (string, error) {
	dir := filepath.Join(scratch, name)
	cmd := exec.Command("go", slices.Concat([]string{"build", "-trimpath", "-ldflags", "-s -w"}, flags, []string{"-o", dir + "/", "nixfleet/cmd/..."})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return dir, nil
}

// Workload is the program of test/lab/workload.
func (l *Lab) Workload() []byte {
	l.T.Helper()
	program, err := working()
	if err != nil {
		l.T.Fatal(err)
	}
	return program
}

func buildWorkload() ([]byte, error) {
	file := filepath.Join(scratch, "workload")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "nixfleet/test/lab/workload")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the workload: %w: %s", err, out)
	}
	return os.ReadFile(file)
}

// Agent puts an agent's program into the store, as the package that a system
// has, and gives its store path. Programs that differ are other packages.
func (l *Lab) Agent(program []byte) string {
	l.T.Helper()
	dir, err := os.MkdirTemp(l.Dir, "")
	dir = filepath.Join(dir, "nixfleet-agent")
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "bin"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bin/nixfleet-agent"), program, 0o755)
	}
	var out []byte
	if err == nil {
		out, err = l.nix("nix-store", "--add", dir).Output()
	}
	if err != nil {
		l.T.Fatalf("put an agent into the store: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// System builds a system for a host, with the agent's package, and gives its store
// path. Fault is one of those that toplevel.nix lists, and so are its further
// arguments, as name=value.
func (l *Lab) System(host, version, agent, fault string, further ...string) string {
	l.T.Helper()
	source, err := filepath.Abs("toplevel.nix")
	if err != nil {
		l.T.Fatal(err)
	}
	argv := []string{"nix-build", "--no-out-link", source}
	for _, argument := range slices.Concat([]string{"host=" + host, "version=" + version, "agent=" + agent, "fault=" + fault}, further) {
		name, value, _ := strings.Cut(argument, "=")
		argv = append(argv, "--argstr", name, value)
	}
	out, err := l.nix(argv...).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		l.T.Fatalf("build system %s %s: %v", host, version, err)
	}
	return strings.TrimSpace(string(out))
}

func (l *Lab) nix(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG=sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command", "HOME="+l.Dir)
	return cmd
}

// install brings a first system onto a host, as its installation would have: in
// the store, in the profile, as the boot default.
func (h *Host) install(ctx context.Context, t testing.TB, cache *Cache, system string) {
	t.Helper()
	for _, argv := range [][]string{
		{"nix-store", "--realise", system, "--option", "substituters", cache.URL, "--option", "trusted-public-keys", cache.Key,
			"--option", "sync-before-registering", "true"},
		{"nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", system},
		{system + "/bin/switch-to-configuration", "switch"},
	} {
		if _, err := h.Exec(ctx, argv...); err != nil {
			t.Fatal(err)
		}
	}
}

// agentLog shows what the agent and the guard of a running host have logged.
func (h *Host) agentLog(t testing.TB) {
	if log, err := h.Exec(context.Background(), "journalctl", "--quiet", "-u", agentUnitName, "-u", guardUnitName, "-u", "nixfleet-guard-now.service", "-o", "cat", "-n", "400"); err == nil {
		t.Logf("agent and guard of %s:\n%s", h.Name, log)
	}
}
