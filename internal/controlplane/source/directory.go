package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// maxSignature is far more than any signature has, so that a file that is none
// is read to no purpose at most so far.
const maxSignature = 4 << 10

// Directory is a folder that releases are published into. Nothing outside of it
// is read, whatever links are put into it; the folder's own path may be a link,
// and is followed anew at every look.
type Directory string

func (d Directory) String() string { return string(d) }

// Open opens the folder.
func (d Directory) Open(context.Context) (Look, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, fmt.Errorf("release source: %w", err)
	}
	return &folder{root}, nil
}

type folder struct{ *os.Root }

func (f *folder) Pair(_ context.Context, name, seen string) (Pair, error) {
	version, err := f.version(name)
	if err != nil || version == seen {
		return Pair{Version: version}, err
	}
	doc, err := f.read(name, trust.MaxDocument)
	if err != nil {
		return Pair{}, err
	}
	sig, err := f.read(name+sigSuffix, maxSignature)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Document: doc, Signature: sig, Version: version}, nil
}

// version tells two states of a pair apart without reading them. It is taken
// before they are read: should they be replaced in between, the next look has
// another version and reads again.
func (f *folder) version(name string) (string, error) {
	doc, err := f.Stat(name)
	if err != nil {
		return "", err
	}
	sig, err := f.Stat(name + sigSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s has no signature beside it", name)
	}
	if err != nil {
		return "", err
	}
	return stamp(doc) + " " + stamp(sig), nil
}

func stamp(info fs.FileInfo) string {
	var inode uint64
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino
	}
	return fmt.Sprint(inode, info.Size(), info.ModTime().UnixNano())
}

// Rollouts leaves out files whose names are no manifest's: a publisher may be
// writing there.
func (f *folder) Rollouts(context.Context) ([]string, error) {
	dir, err := f.Root.Open(rolloutsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", rolloutsDir, err)
	}
	var ids []string
	for _, name := range names {
		id, isDocument := strings.CutSuffix(name, docSuffix)
		if _, _, _, err := fleet.ParseRolloutID(id); isDocument && err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// read reads a file of at most limit bytes. It opens without waiting, because a
// pipe in the folder would hold up every other document.
func (f *folder) read(name string, limit int64) ([]byte, error) {
	file, err := f.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return content, nil
}
