package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// PrivateError is a secret that others than its owner can reach.
type PrivateError struct {
	Path string
	Mode fs.FileMode
}

// Error names the remedy.
func (e *PrivateError) Error() string {
	if e.Mode.IsDir() {
		return fmt.Sprintf("%s has mode %04o, so others can look into it: chmod 700 %s", e.Path, e.Mode.Perm(), e.Path)
	}
	if !e.Mode.IsRegular() {
		return fmt.Sprintf("%s is not a regular file: %s", e.Path, e.Mode)
	}
	return fmt.Sprintf("%s has mode %04o, so others can read it: chmod 600 %s", e.Path, e.Mode.Perm(), e.Path)
}

// CheckPrivate returns a *PrivateError for a file or folder to which its group or
// everybody has any access. What is not there is private.
func CheckPrivate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return CheckPrivateMode(path, info.Mode())
}

// CheckPrivateMode is CheckPrivate for a mode that was asked for already, as of a
// file that is open.
func CheckPrivateMode(path string, mode fs.FileMode) error {
	if !mode.IsRegular() && !mode.IsDir() || mode.Perm()&0o077 != 0 {
		return &PrivateError{Path: path, Mode: mode}
	}
	return nil
}
