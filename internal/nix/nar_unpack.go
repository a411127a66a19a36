package nix

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"nixfleet/internal/durable"
)

// What an archive may be at most. The contents of files are limited by the size
// that its narinfo promises.
const (
	narDepthMax   = 200
	narEntriesMax = 10_000_000
	narNameMax    = 255
	narTargetMax  = 4095
)

// ErrNAR: the bytes are no archive that this package unpacks.
var ErrNAR = errors.New("bad NAR")

// Unpack creates dest, which must not exist, from the NAR that r holds, to the
// end of r. Everything is on disk when it returns nil; only the entry of dest in
// its parent is the caller's to sync. What it created before an error stays.
func Unpack(r io.Reader, dest string) error {
	u := &unpacker{r: bufio.NewReaderSize(r, 64<<10)}
	if err := u.archive(dest); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(dest), err)
	}
	return nil
}

type unpacker struct {
	r       *bufio.Reader
	entries int
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNAR, fmt.Sprintf(format, args...))
}

func (u *unpacker) archive(dest string) error {
	if err := u.expect(narMagic); err != nil {
		return err
	}
	if err := u.node(dest, 0); err != nil {
		return err
	}
	if _, err := u.r.ReadByte(); err == nil {
		return bad("bytes behind its end")
	} else if err != io.EOF {
		return err
	}
	return nil
}

func (u *unpacker) node(dest string, depth int) error {
	if depth > narDepthMax {
		return bad("deeper than %d", narDepthMax)
	}
	if u.entries++; u.entries > narEntriesMax {
		return bad("more than %d entries", narEntriesMax)
	}
	if err := u.expect("(", "type"); err != nil {
		return err
	}
	kind, err := u.word()
	if err != nil {
		return err
	}
	switch kind {
	case "regular":
		return u.regular(dest)
	case "symlink":
		return u.symlink(dest)
	case "directory":
		return u.directory(dest, depth)
	}
	return bad("a node of type %q", kind)
}

func (u *unpacker) regular(dest string) error {
	word, err := u.word()
	if err != nil {
		return err
	}
	mode := os.FileMode(0o444)
	if word == "executable" {
		mode = 0o555
		if err := u.expect(""); err != nil {
			return err
		}
		if word, err = u.word(); err != nil {
			return err
		}
	}
	size := uint64(0)
	if word == "contents" {
		if size, err = u.length(); err != nil {
			return err
		}
	}
	if err := u.contents(dest, mode, size); err != nil {
		return err
	}
	if word != "contents" { // an empty file may be written without contents
		return want(")", word)
	}
	if err := u.skipPadding(size); err != nil {
		return err
	}
	return u.expect(")")
}

func (u *unpacker) contents(dest string, mode os.FileMode, size uint64) error {
	if size > 1<<62 {
		return bad("a file of %d bytes", size)
	}
	f, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, u.r, int64(size))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func (u *unpacker) symlink(dest string) error {
	if err := u.expect("target"); err != nil {
		return err
	}
	target, err := u.text(narTargetMax)
	if err != nil {
		return err
	}
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return bad("a symlink to %q", target)
	}
	if err := os.Symlink(target, dest); err != nil {
		return err
	}
	return u.expect(")")
}

// directory fills a directory that it has just made itself, with names that are
// checked and strictly ascending: so no name occurs twice, and nothing is ever
// created through a symlink.
func (u *unpacker) directory(dest string, depth int) error {
	if err := os.Mkdir(dest, 0o755); err != nil {
		return err
	}
	for last := ""; ; {
		word, err := u.word()
		if err != nil {
			return err
		}
		if word == ")" {
			return durable.SyncDir(dest)
		}
		if err := want("entry", word); err != nil {
			return err
		}
		if err := u.expect("(", "name"); err != nil {
			return err
		}
		name, err := u.text(narNameMax)
		if err != nil {
			return err
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return bad("an entry named %q", name)
		}
		if name <= last {
			return bad("an entry %q behind %q", name, last)
		}
		last = name
		if err := u.expect("node"); err != nil {
			return err
		}
		if err := u.node(filepath.Join(dest, name), depth+1); err != nil {
			return err
		}
		if err := u.expect(")"); err != nil {
			return err
		}
	}
}

// word reads one of the format's own words, none of which is long.
func (u *unpacker) word() (string, error) { return u.text(32) }

func (u *unpacker) expect(words ...string) error {
	for _, w := range words {
		have, err := u.word()
		if err != nil {
			return err
		}
		if err := want(w, have); err != nil {
			return err
		}
	}
	return nil
}

func want(want, have string) error {
	if want != have {
		return bad("%q where %q belongs", have, want)
	}
	return nil
}

func (u *unpacker) length() (uint64, error) {
	var b [8]byte
	if err := u.full(b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (u *unpacker) text(limit uint64) (string, error) {
	n, err := u.length()
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", bad("a text of %d bytes where at most %d belong", n, limit)
	}
	b := make([]byte, n)
	if err := u.full(b); err != nil {
		return "", err
	}
	return string(b), u.skipPadding(n)
}

func (u *unpacker) skipPadding(n uint64) error {
	b := make([]byte, padding(n))
	if err := u.full(b); err != nil {
		return err
	}
	for _, c := range b {
		if c != 0 {
			return bad("padding that is not zero")
		}
	}
	return nil
}

func (u *unpacker) full(b []byte) error {
	_, err := io.ReadFull(u.r, b)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}
