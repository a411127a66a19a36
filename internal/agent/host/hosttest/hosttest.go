// Package hosttest makes binary caches, closures and machines for tests: real
// ones, in temporary directories.
package hosttest

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// Cache is a signed binary cache that a test serves.
type Cache struct {
	Dir  string
	URL  string
	Keys []string
	key  nix.SecretKey
	dir  *nix.CacheDir
	t    testing.TB
}

// NewCache serves an empty cache until the test ends.
func NewCache(t testing.TB) *Cache {
	t.Helper()
	key, err := nix.GenerateKey("cache.test-1")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cache{Dir: filepath.Join(t.TempDir(), "cache"), key: key, Keys: []string{key.Public().String()}, t: t}
	if c.dir, err = nix.CreateCacheDir(c.Dir, key, "none"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(c.Dir)))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// prelude of a closure's switch program: what real ones do to a machine, as
// functions that a script calls.
const prelude = `#!/bin/sh
set -e
self=${0%/bin/*}
me=${self##*/}
action=$1
live() { # become the current system
	ln -sfn "../nix/store/$me" "$NIXFLEET_ROOT/run/current-system"
}
boots() { # become the boot default
	echo "/nix/store/$me" >"$NIXFLEET_ROOT/boot/default.new"
	mv "$NIXFLEET_ROOT/boot/default.new" "$NIXFLEET_ROOT/boot/default"
}
obey() { # do what was asked for
	case $action in
	test) live ;;
	boot) boots ;;
	*) exit 1 ;;
	esac
}
`

// Obey is the script of a closure that does what it is asked for.
const Obey = "obey"

// Closure adds a system closure whose switch program runs the shell script,
// which may call live, boots and obey. It has the units of agent and guard, and
// refers to one other path.
func (c *Cache) Closure(name, script string) fleet.Closure {
	c.t.Helper()
	return c.ClosureWith(name, script, nil)
}

// ClosureWith adds a system closure as Closure does, with further files.
func (c *Cache) ClosureWith(name, script string, more map[string]string) fleet.Closure {
	c.t.Helper()
	files := map[string]string{
		"bin/switch-to-configuration": prelude + script + "\n",
		"system":                      host.System(),
		"nixos-version":               name,
		"etc/systemd/system/nixfleet-agent.service": "[Unit]\n",
		"etc/systemd/system/nixfleet-guard.service": "[Unit]\n",
	}
	maps.Copy(files, more)
	return c.Tree(name, files)
}

// Tree adds a closure of the given files; those in bin are executable.
func (c *Cache) Tree(name string, files map[string]string) fleet.Closure {
	c.t.Helper()
	tree := c.t.TempDir()
	for file, content := range files {
		path := filepath.Join(tree, file)
		mode := os.FileMode(0o644)
		if filepath.Dir(file) == "bin" {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			c.t.Fatal(err)
		}
	}
	needs := c.t.TempDir()
	if err := os.WriteFile(filepath.Join(needs, "name"), []byte(name), 0o644); err != nil {
		c.t.Fatal(err)
	}
	dep, err := c.dir.Add("needs-"+name, needs)
	if err != nil {
		c.t.Fatal(err)
	}
	base, err := c.dir.Add("nixos-system-"+name, tree, dep)
	if err != nil {
		c.t.Fatal(err)
	}
	return fleet.Closure(base)
}

// Fetch is what to ask a machine for.
func (c *Cache) Fetch(rollout string, closure fleet.Closure) host.Fetch {
	return host.Fetch{Rollout: rollout, Closure: closure, Caches: []string{c.URL}, CacheKeys: c.Keys}
}

// NewMachine installs a machine that runs and boots the closure. Whatever still
// runs on it when the test ends is killed.
func (c *Cache) NewMachine(closure fleet.Closure) *dirhost.Machine {
	c.t.Helper()
	m := c.Open(filepath.Join(c.t.TempDir(), "a machine"))
	if err := m.Install(c.t.Context(), c.Fetch("install", closure)); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// Open opens the machine in a directory, which is made when it is not there.
func (c *Cache) Open(dir string) *dirhost.Machine {
	c.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	m, err := dirhost.Open(dir, dirhost.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := m.PowerCycle(); err != nil {
			c.t.Errorf("turn the machine off: %v", err)
		}
	})
	return m
}
