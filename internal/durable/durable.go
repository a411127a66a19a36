// Package durable changes files so that a power cut leaves the old or the new,
// whole.
//
// It promises that what a function wrote is on disk when it returns nil. It needs
// nothing of its caller: two writers of one path end with what one of them wrote.
// A crash may leave a stray file beside the path, named ".new-" and a number.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"nixfleet/internal/crashpoint"
)

// WriteFile replaces the file at path.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		crashpoint.Here("durable/written", "a file is written beside the one that it is to replace")
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	crashpoint.Here("durable/renamed", "a file has taken the place of another; a power cut may bring the old one back")
	return SyncDir(filepath.Dir(path))
}

// Symlink makes a link to target in place of whatever link was at path.
func Symlink(target, path string) error {
	fresh := path + ".new"
	err := os.Symlink(target, fresh)
	if errors.Is(err, fs.ErrExist) { // left by a crash
		err = errors.Join(os.Remove(fresh), os.Symlink(target, fresh))
	}
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a folder durable: what was created, renamed or
// removed there.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
