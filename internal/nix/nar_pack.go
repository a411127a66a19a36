package nix

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const narMagic = "nix-archive-1"

// Pack writes the NAR of a file, a symlink or a directory. Of permissions only
// the owner's execute bit is kept, of times nothing.
func Pack(w io.Writer, path string) error {
	p := &packer{w: w}
	p.strings(narMagic)
	p.node(path)
	if p.err != nil {
		return fmt.Errorf("pack %s: %w", path, p.err)
	}
	return nil
}

// packer keeps the first error, and does nothing after it.
type packer struct {
	w   io.Writer
	err error
}

func (p *packer) write(b []byte) {
	if p.err == nil {
		_, p.err = p.w.Write(b)
	}
}

func (p *packer) length(n uint64) { p.write(binary.LittleEndian.AppendUint64(nil, n)) }

func (p *packer) pad(n uint64) { p.write(make([]byte, padding(n))) }

// padding is how many zeros follow n bytes.
func padding(n uint64) uint64 { return -n & 7 }

func (p *packer) strings(all ...string) {
	for _, s := range all {
		p.length(uint64(len(s)))
		p.write([]byte(s))
		p.pad(uint64(len(s)))
	}
}

func (p *packer) node(path string) {
	if p.err != nil {
		return
	}
	info, err := os.Lstat(path)
	if err != nil {
		p.err = err
		return
	}
	p.strings("(", "type")
	switch mode := info.Mode(); {
	case mode.IsRegular():
		p.regular(path, mode&0o100 != 0)
	case mode.IsDir():
		p.directory(path)
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			p.err = err
			return
		}
		p.strings("symlink", "target", target)
	default:
		p.err = fmt.Errorf("%s is a %v, which no archive can hold", path, mode.Type())
	}
	p.strings(")")
}

func (p *packer) regular(path string, executable bool) {
	f, err := os.Open(path)
	if err != nil {
		p.err = err
		return
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		p.err = err
		return
	}
	size := info.Size()
	p.strings("regular")
	if executable {
		p.strings("executable", "")
	}
	p.strings("contents")
	p.length(uint64(size))
	if p.err != nil {
		return
	}
	n, err := io.Copy(p.w, io.LimitReader(f, size))
	if err == nil && n != size {
		err = fmt.Errorf("%s shrank while it was read", path)
	}
	if err != nil {
		p.err = err
		return
	}
	p.pad(uint64(size))
}

func (p *packer) directory(path string) {
	entries, err := os.ReadDir(path) // sorted by name, as the format wants it
	if err != nil {
		p.err = err
		return
	}
	p.strings("directory")
	for _, e := range entries {
		p.strings("entry", "(", "name", e.Name(), "node")
		p.node(filepath.Join(path, e.Name()))
		p.strings(")")
	}
}
