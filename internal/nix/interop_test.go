package nix

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// realNix returns a runner of real Nix programs, over a store of their own.
func realNix(t *testing.T) func(args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nix-store"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nix-store is not installed, and CI may leave nothing out")
		}
		t.Skip("NOT TESTED against real Nix: nix-store is not installed (Debian: apt-get install nix-bin)")
	}
	root := t.TempDir()
	env := append(os.Environ(),
		"LC_ALL=C",
		"HOME="+filepath.Join(root, "home"),
		"XDG_CACHE_HOME="+filepath.Join(root, "cache"),
		"NIX_CONF_DIR="+root,
		"NIX_REMOTE=local?root="+filepath.Join(root, "machine"),
		"NIX_CONFIG=experimental-features = nix-command\nsandbox = false\nbuild-users-group =\nsubstituters =\nnarinfo-cache-negative-ttl = 0\nnarinfo-cache-positive-ttl = 0\n")
	if err := os.Mkdir(filepath.Join(root, "machine"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a real store is read-only
		filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o755)
			}
			return err
		})
	})
	return func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = env
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
		}
		return strings.TrimSpace(string(out))
	}
}

func TestRealNixFetchesFromACacheOfOurs(t *testing.T) {
	for _, compression := range []string{"none", "xz", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			nix := realNix(t)
			key := testKey(t, "cache-1")
			dir, base := cache(t, key, compression)
			url := serve(t, http.FileServer(http.Dir(dir)))
			path := StoreDir + "/" + base
			nix("nix-store", "--realise", path, "--option", "substituters", url,
				"--option", "trusted-public-keys", key.Public().String(), "--option", "require-sigs", "true")
			nix("nix-store", "--verify-path", path)
			if got := nix("nix-store", "-q", "--hash", path); !strings.HasPrefix(got, "sha256:") {
				t.Errorf("its hash is %s", got)
			}
			if refs := nix("nix-store", "-q", "--references", path); !strings.HasSuffix(refs, "-dep") {
				t.Errorf("its references are %s", refs)
			}
		})
	}
}

func TestFetchFromACacheThatRealNixWrote(t *testing.T) {
	for _, compression := range []string{"none", "xz", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			nix := realNix(t)
			work := t.TempDir()
			secret, public := filepath.Join(work, "secret"), filepath.Join(work, "public")
			nix("nix-store", "--generate-binary-cache-key", "real.example.org-1", secret, public)
			key, err := ParsePublicKey(string(must(os.ReadFile(public))))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := ParseSecretKey(string(must(os.ReadFile(secret))))
			if err != nil || ours.Public().String() != key.String() {
				t.Fatalf("a secret key made by Nix is read as %v, %v", ours.Public(), err)
			}
			src := tree(t)
			path := nix("nix-store", "--add", src+"/deep")
			nix("nix", "copy", "--to", "file://"+work+"/cache?compression="+compression+"&secret-key="+secret, path)
			base, err := ParsePath(path)
			if err != nil {
				t.Fatal(err)
			}
			c := client(t, serve(t, http.FileServer(http.Dir(work+"/cache"))), key)
			info, err := c.Info(t.Context(), base)
			if err != nil {
				t.Fatal(err)
			}
			if want := nix("nix-store", "-q", "--hash", path); info.NarHash.String() != want {
				t.Errorf("its hash is %s, Nix says %s", info.NarHash, want)
			}
			dest := filepath.Join(work, base)
			if err := c.Fetch(t.Context(), info, dest); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(pack(t, dest), pack(t, src+"/deep")) {
				t.Error("came back otherwise")
			}
		})
	}
}
