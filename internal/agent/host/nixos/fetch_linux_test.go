package nixos

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// What real versions of Nix said, in each case.
func TestClassification(t *testing.T) {
	files, err := filepath.Glob("testdata/stderr/*")
	if err != nil || len(files) < 15 {
		t.Fatalf("only %d texts, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, said, _ := strings.Cut(string(text), "\n")
		heard := new(hearing)
		for line := range strings.Lines(said) {
			heard.line(line)
		}
		if got := heard.kind(); string(got) != want {
			t.Errorf("%s means %s, want %s", file, got, want)
		}
	}
}

// pathInfoKey signed the path of testdata/path-info.
const pathInfoKey = "cache.test-1:tC3lf4S1jZX/d0kvHtqyIjLgHxsgpLbUvhkQ2Ujw6pY="

func TestParsePathInfo(t *testing.T) {
	const base = "3i1idw9d9259kasbmc3dkjfla8s3mpm7-nixos-system-v2"
	for _, file := range []string{"testdata/path-info/2.8.json", "testdata/path-info/by-path.json", "testdata/path-info/by-name.json"} {
		output, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key, err := nix.ParsePublicKey(pathInfoKey)
		if err != nil {
			t.Fatal(err)
		}
		info, err := parsePathInfo(output, base)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if !info.Verify([]nix.PublicKey{key}) {
			t.Errorf("%s: the signature on record does not verify: %s", file, info.Fingerprint())
		}
		if _, err := parsePathInfo(output, "0"+base[1:]); err == nil {
			t.Errorf("%s: found another path", file)
		}
	}
	for _, output := range []string{"", "[]", "{}", "null", "3", `[{"path":"/nix/store/` + base + `","valid":false}]`, `{"/nix/store/` + base + `":null}`,
		`[{"path":"/nix/store/` + base + `","narHash":"md5:x"}]`} {
		if info, err := parsePathInfo([]byte(output), base); err == nil {
			t.Errorf("%s: %+v", output, info)
		}
	}
}

// realNix is a machine with real Nix programs and a store of its own.
func realNix(t *testing.T) *Machine {
	t.Helper()
	if _, err := exec.LookPath("nix-store"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nix-store is not installed, and CI may leave nothing out")
		}
		t.Skip("NOT TESTED against real Nix: nix-store is not installed (Debian: apt-get install nix-bin)")
	}
	work := t.TempDir()
	root := filepath.Join(work, "machine")
	for _, dir := range []string{root + "/nix/store", root + profileDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // a real store is read-only
		filepath.WalkDir(work, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o755)
			}
			return err
		})
	})
	m, err := Open(Options{Root: root, Env: []string{
		"NIX_REMOTE=local?root=" + root,
		"NIX_CONF_DIR=" + work,
		"HOME=" + work,
		"XDG_CACHE_HOME=" + filepath.Join(work, "cache"),
		"NIX_CONFIG=sandbox = false\nbuild-users-group =\nsubstituters =\nnarinfo-cache-positive-ttl = 0\n",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func kindOf(err error) host.FetchKind {
	var failed *host.FetchError
	if errors.As(err, &failed) {
		return failed.Kind
	}
	return ""
}

func TestRealNixFetches(t *testing.T) {
	m := realNix(t)
	cache := hosttest.NewCache(t)
	v2 := cache.Closure("v2", hosttest.Obey)
	f := cache.Fetch("r2", v2)
	var last host.FetchProgress
	f.Progress = func(p host.FetchProgress) { last = p }
	if err := m.Fetch(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if last.Paths != 2 {
		t.Errorf("progress %+v, want 2 paths", last)
	}
	if target, err := os.Readlink(m.root + rootsDir + "/r2"); err != nil || target != v2.Path() {
		t.Errorf("its root leads to %q, %v", target, err)
	}
	if _, err := os.Stat(m.Path(v2) + "/bin/switch-to-configuration"); err != nil {
		t.Error(err)
	}
	// Again, with no cache at all: it is there, and signed.
	f.Caches = []string{"http://127.0.0.1:9"}
	if err := m.Fetch(t.Context(), f); err != nil {
		t.Error(err)
	}
	// It becomes a generation.
	for i, want := range []int{1, 1} {
		if n, err := m.SetProfile(t.Context(), v2); err != nil || n != want {
			t.Errorf("set %d: generation %d, %v", i, n, err)
		}
	}
	if facts, err := m.Facts(t.Context()); err != nil || facts.Profile != v2 || facts.Generation != 1 {
		t.Errorf("%+v, %v", facts, err)
	}
	if _, err := m.SetProfile(t.Context(), "0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-absent"); err == nil {
		t.Error("the profile was set to a path that is not valid")
	}
}

func TestRealNixFails(t *testing.T) {
	cache := hosttest.NewCache(t)
	v2 := cache.Closure("v2", hosttest.Obey)
	files := http.FileServer(http.Dir(cache.Dir))
	server := func(handle http.HandlerFunc) string {
		s := httptest.NewServer(handle)
		t.Cleanup(s.Close)
		return s.URL
	}
	nars := func(body []byte) string {
		return server(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".nar") {
				w.Write(body) // Nix may hang up
				return
			}
			files.ServeHTTP(w, r)
		})
	}
	down := httptest.NewServer(nil)
	down.Close()
	strangers := hosttest.NewCache(t)
	if strangers.Closure("v2", hosttest.Obey) != v2 {
		t.Fatal("the same closure has two names")
	}
	for name, c := range map[string]struct {
		spec host.Fetch
		want host.FetchKind
	}{
		"missing":         {host.Fetch{Caches: []string{server(http.NotFound)}, CacheKeys: cache.Keys}, host.FetchMissing},
		"unpinned":        {host.Fetch{Caches: []string{strangers.URL}, CacheKeys: cache.Keys}, host.FetchBadSignature},
		"corrupt":         {host.Fetch{Caches: []string{nars([]byte("no archive"))}, CacheKeys: cache.Keys}, host.FetchCorrupt},
		"down":            {host.Fetch{Caches: []string{down.URL}, CacheKeys: cache.Keys}, host.FetchCacheDown},
		"in trouble":      {host.Fetch{Caches: []string{server(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "", http.StatusInternalServerError) })}, CacheKeys: cache.Keys}, host.FetchCacheDown},
		"no keys":         {host.Fetch{Caches: []string{cache.URL}}, host.FetchNoKeys},
		"trusted":         {host.Fetch{Caches: []string{cache.URL + "?trusted=1"}, CacheKeys: cache.Keys}, host.FetchOther},
		"no cache at all": {host.Fetch{CacheKeys: cache.Keys}, host.FetchMissing}, // the settings have none
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := realNix(t)
			c.spec.Rollout, c.spec.Closure = "r2", v2
			err := m.Fetch(t.Context(), c.spec)
			if got := kindOf(err); got != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			if c.want == host.FetchBadSignature {
				if _, err := os.Stat(m.Path(v2)); err == nil {
					t.Error("it is in the store")
				}
			}
			if err := m.Fetch(t.Context(), cache.Fetch("r2", v2)); err != nil {
				t.Errorf("afterwards, from a good cache: %v", err)
			}
		})
	}
}

// What was valid before counts only with a signature of ours.
func TestRealNixValidButUnsigned(t *testing.T) {
	m := realNix(t)
	cache := hosttest.NewCache(t)
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "x"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := m.run(t.Context(), command{name: "nix-store", args: []string{"--add", tree}})
	if err != nil {
		t.Fatal(err)
	}
	local := fleet.Closure(storeName(strings.TrimSpace(string(output))))
	if err := m.Fetch(t.Context(), cache.Fetch("r1", local)); kindOf(err) != host.FetchBadSignature {
		t.Errorf("a path that was added here: %v", err)
	}
	// Brought by another key first; then ours has to be found.
	strangers := hosttest.NewCache(t)
	v2 := strangers.Closure("v2", hosttest.Obey)
	if err := m.Fetch(t.Context(), strangers.Fetch("r2", v2)); err != nil {
		t.Fatal(err)
	}
	if err := m.Fetch(t.Context(), cache.Fetch("r2", v2)); kindOf(err) != host.FetchBadSignature {
		t.Errorf("a path that a stranger signed: %v", err)
	}
	if cache.Closure("v2", hosttest.Obey) != v2 {
		t.Fatal("the same closure has two names")
	}
	if err := m.Fetch(t.Context(), cache.Fetch("r2", v2)); err != nil {
		t.Errorf("our cache signed it by now: %v", err)
	}
}

// A24, with the files of a real store.
func TestRealNixRepairs(t *testing.T) {
	m := realNix(t)
	cache := hosttest.NewCache(t)
	v2 := cache.Closure("v2", hosttest.Obey)
	f := cache.Fetch("r2", v2)
	f.Repair = true
	if err := m.Fetch(t.Context(), f); err != nil {
		t.Fatalf("nothing to repair yet: %v", err)
	}
	program := m.Path(v2) + "/bin/switch-to-configuration"
	if err := errors.Join(os.Chmod(program, 0o755), os.Truncate(program, 0)); err != nil {
		t.Fatal(err)
	}
	if err := m.Fetch(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(program); err != nil || info.Size() == 0 {
		t.Errorf("not repaired: %v", err)
	}
}

// A17, A27: a cache that never answers is given up when the caller wants it, and
// nothing of the attempt is left.
func TestRealNixIsCancelled(t *testing.T) {
	m := realNix(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	asked := make(chan net.Conn, 8)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				close(asked)
				return
			}
			asked <- conn // and never an answer
		}
	}()
	cache := hosttest.NewCache(t)
	spec := host.Fetch{Rollout: "r2", Closure: v2, Caches: []string{"http://" + listener.Addr().String()}, CacheKeys: cache.Keys}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn := <-asked
		cancel()
		conn.Close()
	}()
	if err := m.Fetch(ctx, spec); !errors.Is(err, context.Canceled) || kindOf(err) != "" {
		t.Errorf("cancelled: %v", err)
	}
	limited, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := m.Fetch(limited, spec); kindOf(err) != host.FetchCacheDown {
		t.Errorf("past the deadline: %v", err)
	}
}

func TestCachesOfTheSettings(t *testing.T) {
	m := realNix(t)
	m.env = append(m.env, "NIX_CONFIG=substituters = https://a.example https://b.example?trusted=1 https://c.example?priority=3\n")
	got, err := m.caches(t.Context(), host.Fetch{})
	if err != nil || strings.Join(got, " ") != "https://a.example https://c.example?priority=3" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWhetherNixRequiresSignatures(t *testing.T) {
	for setting, want := range map[string]bool{"": true, "require-sigs = true\n": true, "require-sigs = false\n": false} {
		m := realNix(t)
		m.env = append(m.env, "NIX_CONFIG="+setting+"substituters = https://a.example?trusted=1\n")
		got, err := m.NixSettings(t.Context())
		if err != nil || got.RequireSigs != want || !slices.Equal(got.Substituters, []string{"https://a.example?trusted=1"}) {
			t.Errorf("%q: %+v, %v", setting, got, err)
		}
	}
}
