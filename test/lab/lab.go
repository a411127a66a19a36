package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is one test's set of machines, programs and caches. All of it ends with
// the test.
type Lab struct {
	T   testing.TB
	Dir string // a folder for everything that the scenario makes

	hosts int
}

// Open starts an empty lab.
func Open(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{T: t, Dir: t.TempDir()}
	// Overlay needs a file system that takes its attributes, which a tmpfs in /tmp may not.
	if err := network(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run("ip", "link", "del", bridge) })
	return l
}

// Host makes a machine and boots it. Prepare may change its disk before.
func (l *Lab) Host(ctx context.Context, name string, prepare func(root string) error) *Host {
	l.T.Helper()
	l.hosts++
	h, err := newHost(l.Dir, name, fmt.Sprintf("10.77.0.%d", 10+l.hosts))
	if err != nil {
		l.T.Fatal(err)
	}
	l.T.Cleanup(func() {
		if l.T.Failed() {
			h.agentLog(l.T)
		}
		if err := h.PowerOff(); err != nil {
			l.T.Error(err)
		}
		_ = unix.Unmount(h.Root(), unix.MNT_DETACH) // a host that never started is still mounted
		_ = run("ip", "netns", "del", "lab-"+name)
	})
	if err := h.PowerOn(ctx, prepare); err != nil {
		_ = h.Log(l.T.Output())
		l.T.Fatal(err)
	}
	return h
}

// Programs builds the three programs without debugging information, static, as
// they are released, and gives the folder that holds them.
func (l *Lab) Programs() string {
	l.T.Helper()
	bin := filepath.Join(l.Dir, "bin")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin+"/", "nixfleet/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.T.Fatalf("build the programs: %v: %s", err, out)
	}
	return bin
}

// System builds a system for a host and gives its store path. Fault is one of
// those that toplevel.nix lists, and so are its further arguments, as name=value.
func (l *Lab) System(host, version, fault string, further ...string) string {
	l.T.Helper()
	source, err := filepath.Abs("toplevel.nix")
	if err != nil {
		l.T.Fatal(err)
	}
	argv := []string{"nix-build", "--no-out-link", source}
	for _, argument := range append(further, "host="+host, "version="+version, "fault="+fault) {
		name, value, _ := strings.Cut(argument, "=")
		argv = append(argv, "--argstr", name, value)
	}
	out, err := l.nix(argv...).Output()
	if err != nil {
		l.T.Fatalf("build system %s %s: %v", host, version, err)
	}
	return strings.TrimSpace(string(out))
}

func (l *Lab) nix(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "NIX_CONFIG=sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command", "HOME="+l.Dir)
	return cmd
}

// Cache is a signed binary cache, made by Nix, served over HTTP to the hosts.
type Cache struct {
	URL string
	Key string // public, as in trusted-public-keys

	lab    *Lab
	dir    string
	secret string
}

// Cache makes an empty cache with a new key.
func (l *Lab) Cache(name string) *Cache {
	l.T.Helper()
	c := &Cache{lab: l, dir: filepath.Join(l.Dir, "cache-"+name), secret: filepath.Join(l.Dir, name+".sec")}
	public := filepath.Join(l.Dir, name+".pub")
	if err := l.nix("nix-store", "--generate-binary-cache-key", name+"-1", c.secret, public).Run(); err != nil {
		l.T.Fatal(err)
	}
	key, err := os.ReadFile(public)
	if err != nil {
		l.T.Fatal(err)
	}
	c.Key = strings.TrimSpace(string(key))
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		l.T.Fatal(err)
	}
	listener, err := net.Listen("tcp", Gateway+":0")
	if err != nil {
		l.T.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(c.dir)), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	l.T.Cleanup(func() { _ = server.Close() })
	c.URL = "http://" + listener.Addr().String()
	return c
}

// Push copies systems with their closures into the cache, signed by its key.
func (c *Cache) Push(paths ...string) {
	c.lab.T.Helper()
	args := append([]string{"nix", "copy", "--to", "file://" + c.dir + "?secret-key=" + c.secret}, paths...)
	if err := c.lab.nix(args...).Run(); err != nil {
		c.lab.T.Fatal(err)
	}
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
