package nix

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func FuzzNarInfo(f *testing.F) {
	for _, pattern := range []string{"testdata/narinfo/good", "testdata/narinfo/bad/*"} {
		for _, file := range must(filepath.Glob(pattern)) {
			f.Add(must(os.ReadFile(file)))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := ParseNarInfo(text)
		if err != nil {
			return
		}
		again, err := ParseNarInfo(n.Format())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, n.Format())
		}
		if again.Fingerprint() != n.Fingerprint() {
			t.Fatalf("%q became %q", n.Fingerprint(), again.Fingerprint())
		}
	})
}

func FuzzStorePath(f *testing.F) {
	f.Add("/nix/store/1qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-a")
	f.Add("/nix/store/1qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-../../etc/passwd")
	f.Fuzz(func(t *testing.T, path string) {
		base, err := ParsePath(path)
		if err != nil {
			return
		}
		if clean := filepath.Clean(path); clean != path || filepath.Base(path) != base || filepath.Dir(path) != StoreDir {
			t.Fatalf("%q was taken for the store path %q", path, base)
		}
	})
}

func FuzzNar(f *testing.F) {
	f.Add(pack(f, tree(f)))
	f.Add(narWords(narMagic, "(", "type", "symlink", "target", "..", ")"))
	f.Add(narWords(narMagic, "(", "type", "directory", "entry", "(", "name", "..", "node", "(", "type", "regular", ")", ")", ")"))
	f.Fuzz(func(t *testing.T, nar []byte) {
		parent := t.TempDir()
		dest := filepath.Join(parent, "out")
		err := Unpack(bytes.NewReader(nar), dest)
		if entries, _ := os.ReadDir(parent); len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "out" {
			t.Fatalf("left %v beside its place", entries)
		}
		if err != nil {
			return
		}
		again := filepath.Join(parent, "again")
		if err := Unpack(bytes.NewReader(pack(t, dest)), again); err != nil {
			t.Fatalf("what was packed cannot be unpacked: %v", err)
		}
		if !bytes.Equal(pack(t, again), pack(t, dest)) {
			t.Fatal("came back otherwise")
		}
	})
}
