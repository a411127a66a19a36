package nix

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestBase32(t *testing.T) {
	// The first is the SHA-256 of nothing, as nix-hash --to-base32 prints it.
	empty := sha256.Sum256(nil)
	if got, want := EncodeBase32(empty[:]), "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"; got != want {
		t.Errorf("EncodeBase32(sha256 of nothing) = %s, want %s", got, want)
	}
	for n := range 40 {
		b := bytes.Repeat([]byte{0xa7, 0x01, 0xff}, 14)[:n]
		got, err := DecodeBase32(EncodeBase32(b))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: %x came back as %x, %v", n, b, got, err)
		}
	}
	for _, s := range []string{"e0", "0e", "zz", "0", "000", "10000000000000000000000000000000z", "é0"} {
		if b, err := DecodeBase32(s); err == nil && EncodeBase32(b) != s {
			t.Errorf("DecodeBase32(%q) = %x, which is written otherwise", s, b)
		}
	}
}

func TestCheckBase(t *testing.T) {
	hash := strings.Repeat("0", 31) + "1"
	for base, good := range map[string]bool{
		hash + "-nixos-system-a-25.05":        true,
		hash + "-a+b-c._?=9":                  true,
		hash + "-" + strings.Repeat("a", 211): true,
		hash + "-" + strings.Repeat("a", 212): false,
		hash + "-":                            false,
		hash:                                  false,
		"":                                    false,
		hash + "-.hidden":                     false,
		hash + "-a/b":                         false,
		hash + "-a b":                         false,
		"../" + hash + "-a":                   false,
		hash[1:] + "-a":                       false,
		strings.Repeat("0", 31) + "e-a":       false,
		strings.ToUpper("abcdf") + hash[5:] + "-a": false,
	} {
		if err := CheckBase(base); (err == nil) != good {
			t.Errorf("CheckBase(%q) = %v", base, err)
		}
	}
	if base, err := ParsePath("/nix/store/" + hash + "-a"); err != nil || base != hash+"-a" {
		t.Errorf("ParsePath = %q, %v", base, err)
	}
	for _, path := range []string{hash + "-a", "/nix/store/" + hash + "-a/bin", "/nix/var/" + hash + "-a", "/nix/store//" + hash + "-a"} {
		if _, err := ParsePath(path); err == nil {
			t.Errorf("ParsePath(%q) was accepted", path)
		}
	}
}

func TestParseHashReadsEveryFormNixWrites(t *testing.T) {
	want := Hash(sha256.Sum256(nil))
	for _, s := range []string{
		"sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
	} {
		if got, err := ParseHash(s); err != nil || got != want {
			t.Errorf("ParseHash(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "sha256:", "sha256-", "sha1:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", "sha256-47DEQpj8", "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"} {
		if got, err := ParseHash(s); err == nil {
			t.Errorf("ParseHash(%q) = %v", s, got)
		}
	}
}

func testKey(t testing.TB, name string) SecretKey {
	t.Helper()
	key, err := GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sample(t testing.TB) *NarInfo {
	t.Helper()
	n, err := ParseNarInfo(must(os.ReadFile("testdata/narinfo/good")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNarInfoComesBackAsWritten(t *testing.T) {
	text := must(os.ReadFile("testdata/narinfo/good"))
	if got := sample(t).Format(); !bytes.Equal(got, text) {
		t.Errorf("written:\n%s\nread:\n%s", got, text)
	}
}

func TestSignatureIsOverEverythingThatMatters(t *testing.T) {
	key, other := testKey(t, "cache-1"), testKey(t, "cache-1")
	good := sample(t)
	good.Sigs = nil
	good.Sign(key)
	keys := []PublicKey{other.Public(), key.Public()}
	if !good.Verify(keys) {
		t.Fatal("its own signature does not verify")
	}
	for name, change := range map[string]func(*NarInfo){
		"another path":      func(n *NarInfo) { n.Base = "3" + n.Base[1:] },
		"another hash":      func(n *NarInfo) { n.NarHash[0] ^= 1 },
		"another size":      func(n *NarInfo) { n.NarSize++ },
		"one more input":    func(n *NarInfo) { n.References = append(n.References, "2"+n.Base[1:]) },
		"one input less":    func(n *NarInfo) { n.References = n.References[1:] },
		"no signature":      func(n *NarInfo) { n.Sigs = nil },
		"another's name":    func(n *NarInfo) { n.Sigs = []string{"x" + n.Sigs[0]} },
		"half a signature":  func(n *NarInfo) { n.Sigs = []string{n.Sigs[0][:40]} },
		"another's key":     func(n *NarInfo) { n.Sigs = nil; n.Sign(testKey(t, "cache-1")) },
		"an unpinned cache": func(n *NarInfo) { n.Sigs = nil; n.Sign(testKey(t, "other-1")) },
	} {
		n := *good
		n.References = slices.Clone(good.References)
		change(&n)
		if n.Verify(keys) {
			t.Errorf("%s: still verifies", name)
		}
	}
	if good.Verify(nil) {
		t.Error("verifies with no keys pinned")
	}
	shuffled := *good
	shuffled.References = slices.Clone(good.References)
	slices.Reverse(shuffled.References)
	if !shuffled.Verify(keys) {
		t.Error("the order of references counts")
	}
}

func TestBadNarInfos(t *testing.T) {
	files := must(filepath.Glob("testdata/narinfo/bad/*"))
	if len(files) < 8 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		want, text, _ := strings.Cut(string(must(os.ReadFile(file))), "\n")
		want = strings.TrimPrefix(want, "want: ")
		n, err := ParseNarInfo([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want an error with %q", file, n, err, want)
		}
	}
}

func TestKeysAreReadAsWritten(t *testing.T) {
	key := testKey(t, "cache.example.org-1")
	again, err := ParseSecretKey(key.Text() + "\n")
	if err != nil || again.Text() != key.Text() {
		t.Errorf("ParseSecretKey: %v", err)
	}
	public, err := ParsePublicKey(key.Public().String())
	if err != nil || public.String() != key.Public().String() {
		t.Errorf("ParsePublicKey: %v", err)
	}
	for _, text := range []string{"", "x", ":AAAA", "x:", "x:AAAA", "a b:" + strings.SplitN(key.Public().String(), ":", 2)[1]} {
		if _, err := ParsePublicKey(text); err == nil {
			t.Errorf("ParsePublicKey(%q) was accepted", text)
		}
	}
	if _, err := ParseSecretKey("x:" + strings.Repeat("A", 10)); err == nil || strings.Contains(err.Error(), "AAAA") {
		t.Errorf("ParseSecretKey's error is nil or quotes the key: %v", err)
	}
}

func TestContentBase(t *testing.T) {
	a, err := ContentBase(Hash{1}, "a")
	if err != nil || CheckBase(a) != nil {
		t.Fatalf("ContentBase = %q, %v", a, err)
	}
	if b, _ := ContentBase(Hash{2}, "a"); b == a {
		t.Error("other contents, same path")
	}
	if _, err := ContentBase(Hash{1}, "../a"); err == nil {
		t.Error("accepted ../a")
	}
}

// tree makes a directory with one of everything.
func tree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree with spaces")
	for _, d := range []string{"bin", "empty", "deep/er"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"bin/run": "#!/bin/sh\nexit 0\n", "eight": "12345678", "nothing": "", "deep/er/ü": "x"} {
		mode := os.FileMode(0o600)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../eight", filepath.Join(dir, "bin/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func pack(t testing.TB, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(&b, path); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestNarComesBackAsPacked(t *testing.T) {
	src := tree(t)
	for _, path := range []string{src, filepath.Join(src, "eight"), filepath.Join(src, "bin/run"), filepath.Join(src, "dangling"), filepath.Join(src, "empty")} {
		nar := pack(t, path)
		dest := filepath.Join(t.TempDir(), "out")
		if err := Unpack(bytes.NewReader(nar), dest); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if !bytes.Equal(pack(t, dest), nar) {
			t.Errorf("%s: came back otherwise", path)
		}
	}
	if info, err := os.Stat(filepath.Join(src, "bin/run")); err != nil || info.Mode()&0o100 == 0 {
		t.Error("the sample has no program")
	}
}

func TestPackRefusesWhatIsNoFile(t *testing.T) {
	if err := Pack(&bytes.Buffer{}, "/dev/null"); err == nil {
		t.Error("packed a device")
	}
	if err := Pack(&bytes.Buffer{}, filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("packed an absent file: %v", err)
	}
}

// narWords writes an archive of words, for archives that Pack would not write.
func narWords(words ...string) []byte {
	var b bytes.Buffer
	(&packer{w: &b}).strings(words...)
	return b.Bytes()
}

func entry(name string, node ...string) []string {
	return slices.Concat([]string{"entry", "(", "name", name, "node"}, node, []string{")"})
}

func TestHostileNars(t *testing.T) {
	file := []string{"(", "type", "regular", "contents", "x", ")"}
	link := []string{"(", "type", "symlink", "target", "/tmp", ")"}
	dir := func(entries ...[]string) []byte {
		return narWords(slices.Concat([]string{narMagic, "(", "type", "directory"}, slices.Concat(entries...), []string{")"})...)
	}
	deep := []string{narMagic}
	for range narDepthMax + 2 {
		deep = append(deep, "(", "type", "directory", "entry", "(", "name", "a", "node")
	}
	whole := dir(entry("a", file...))
	for name, nar := range map[string][]byte{
		"nothing":                  nil,
		"not a NAR":                []byte("<html>not found</html>"),
		"parent directory":         dir(entry("..", file...)),
		"this directory":           dir(entry(".", file...)),
		"a path for a name":        dir(entry("a/b", file...)),
		"an absolute name":         dir(entry("/etc/passwd", file...)),
		"an empty name":            dir(entry("", file...)),
		"a NUL in a name":          dir(entry("a\x00b", file...)),
		"a name twice":             dir(entry("a", file...), entry("a", file...)),
		"a link, then through it":  dir(entry("a", link...), entry("a", "(", "type", "directory", ")")),
		"names out of order":       dir(entry("b", file...), entry("a", file...)),
		"an endless name":          dir(entry(strings.Repeat("a", narNameMax+1), file...)),
		"an endless target":        narWords(narMagic, "(", "type", "symlink", "target", strings.Repeat("a", narTargetMax+1), ")"),
		"a device":                 narWords(narMagic, "(", "type", "device", ")"),
		"two types":                narWords(narMagic, "(", "type", "directory", "type", "regular", ")"),
		"deeper than any tree":     narWords(deep...),
		"cut in the middle":        whole[:len(whole)-20],
		"something behind its end": append(slices.Clone(whole), 0),
		"padding with a message":   bytes.Replace(whole, []byte("x\x00\x00"), []byte("x\x00!"), 1),
		"more bytes than there are": append(narWords(narMagic, "(", "type", "regular", "contents"),
			0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
	} {
		parent := t.TempDir()
		err := Unpack(bytes.NewReader(nar), filepath.Join(parent, "out"))
		if err == nil {
			t.Errorf("%s: unpacked", name)
		}
		if entries, _ := os.ReadDir(parent); len(entries) > 1 {
			t.Errorf("%s: left something beside its place", name)
		}
	}
	if err := Unpack(bytes.NewReader(whole), t.TempDir()); err == nil {
		t.Error("unpacked over what was there")
	}
}
