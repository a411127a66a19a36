package guard

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Touch shows that the agent lives, at the given time of the machine's clock. It
// is not made durable: the folder is gone with the boot.
func (f Files) Touch(clock time.Duration) error { return writeClock(f.alive(), clock) }

// touched is when the agent last did.
func (f Files) touched() (clock time.Duration, ok bool, err error) { return readClock(f.alive()) }

// Watch notes that a guard watches, and gives since when one has in this boot: one
// that died and was started again goes on counting.
func (f Files) Watch(now time.Duration) (time.Duration, error) {
	since, ok, err := readClock(f.since())
	if ok || err != nil {
		return since, err
	}
	return now, writeClock(f.since(), now)
}

func writeClock(path string, clock time.Duration) error {
	tmp := path + ".new"
	text := strconv.FormatInt(int64(clock), 10) + "\n"
	err := os.WriteFile(tmp, []byte(text), 0o600)
	if errors.Is(err, os.ErrNotExist) {
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(tmp, []byte(text), 0o600))
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Watched tells whether a guard has begun to watch what is guarded in this boot.
func (f Files) Watched() bool {
	_, ok, err := readClock(f.since())
	return ok && err == nil
}

func readClock(path string) (clock time.Duration, ok bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Duration(n), err == nil, err
}
