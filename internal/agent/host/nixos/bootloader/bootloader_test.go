package bootloader

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf16"

	"github.com/rogpeppe/go-internal/txtar"

	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// Each case is an archive of a machine's boot files. The last line before them is
// what is to be known: "next <closure>", or "unknown <words of the reason>".
func TestNext(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) < 50 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			root, verdict, want := machine(t, file)
			got, err := Next(root)
			var unknown *Unknown
			switch {
			case verdict == "next" && (err != nil || got != fleet.Closure(want)):
				t.Errorf("%q, %v; want %q", got, err, want)
			case verdict == "unknown" && (got != "" || !errors.As(err, &unknown) || !strings.Contains(err.Error(), want)):
				t.Errorf("%q, %v; want it unknown because of %q", got, err, want)
			}
		})
	}
}

// machine reads a case. Files among the EFI variables become what the kernel
// shows of them.
func machine(t testing.TB, file string) (root fstest.MapFS, verdict, want string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	about := strings.Split(strings.TrimSpace(string(archive.Comment)), "\n")
	verdict, want, _ = strings.Cut(about[len(about)-1], " ")
	if verdict != "next" && verdict != "unknown" || want == "" {
		t.Fatalf("%s says %q", file, archive.Comment)
	}
	root = fstest.MapFS{}
	for _, f := range archive.Files {
		name, data := f.Name, f.Data
		if variable, ok := strings.CutPrefix(name, efiVariables+"/"); ok {
			name, data = variableFile(variable, strings.TrimSpace(string(data)))
		}
		root[name] = &fstest.MapFile{Data: data}
	}
	return root, verdict, want
}

func variableFile(name, value string) (string, []byte) {
	data := []byte{7, 0, 0, 0}
	for _, unit := range append(utf16.Encode([]rune(value)), 0) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return efiVariables + "/" + name + "-" + loaderVendor, data
}

// A file system that cannot be read is another thing than files that say nothing:
// it may be readable later.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"boot/loader/loader.conf", "boot/grub/grub.cfg", "boot/grub/grubenv"} {
		root := failing{fstest.MapFS{"boot/loader/loader.conf": {}, "boot/loader/entries/a.conf": {}}, name}
		if strings.Contains(name, "grub") {
			root.FS = fstest.MapFS{"boot/grub/grub.cfg": {}, "boot/grub/grubenv": {}}
		}
		_, err := Next(root)
		var unknown *Unknown
		if !errors.Is(err, fs.ErrPermission) || errors.As(err, &unknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is a file system with one file that cannot be opened.
type failing struct {
	fs.FS
	name string
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.FS.Open(name)
}

func (f failing) Stat(name string) (fs.FileInfo, error) { return fs.Stat(f.FS, name) }

func TestBrokenVariable(t *testing.T) {
	root, _, _ := machine(t, "testdata/systemd-boot-generation.txtar")
	name, data := variableFile("LoaderEntryOneShot", "x")
	for _, broken := range [][]byte{nil, data[:3], data[:5]} {
		root[name] = &fstest.MapFile{Data: broken}
		var unknown *Unknown
		if got, err := Next(root); !errors.As(err, &unknown) {
			t.Errorf("of %d bytes: %q, %v", len(broken), got, err)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	// Words come before numbers, and of equal beginnings the longer is newer.
	ascending := []string{"", "a", "ab", "b", "9", "10", "10.a", "10.1", "10.2", "11"}
	for i, a := range ascending {
		for j, b := range ascending {
			got := compareVersions(a, b)
			if (i < j) != (got < 0) || (i > j) != (got > 0) {
				t.Errorf("compareVersions(%q, %q) = %d", a, b, got)
			}
		}
	}
	if compareVersions("1.007", "1-7") != 0 {
		t.Error("leading zeros and separators count")
	}
}

// FuzzNext: whatever the files hold, the answer is a closure or Unknown.
func FuzzNext(f *testing.F) {
	names := []string{"boot/default-system", "boot/loader/loader.conf", "boot/grub/grub.cfg", "boot/extlinux/extlinux.conf"}
	second := []string{"", "boot/loader/entries/nixos-a+1-2.conf", "boot/grub/grubenv", ""}
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range cases {
		root, _, _ := machine(f, file)
		for kind, name := range names {
			if config := root[name]; config != nil {
				var other []byte
				for n, o := range root {
					if n != name && o != nil {
						other = o.Data
					}
				}
				f.Add(uint8(kind), config.Data, other)
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, config, other []byte) {
		i := int(kind) % len(names)
		root := fstest.MapFS{names[i]: {Data: config}}
		if second[i] != "" {
			root[second[i]] = &fstest.MapFile{Data: other}
		}
		got, err := Next(root)
		var unknown *Unknown
		switch {
		case err == nil:
			if nix.CheckBase(string(got)) != nil {
				t.Errorf("%q is no closure", got)
			}
		case got != "" || !errors.As(err, &unknown):
			t.Errorf("%q, %v", got, err)
		}
	})
}
