package host

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A15, A28: the lock is seen, and never taken.
func TestFlocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	look := func(want bool) {
		t.Helper()
		if got, err := Flocked(path); got != want || err != nil {
			t.Errorf("Flocked = %v, %v; want %v", got, err, want)
		}
	}
	look(false)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	look(false)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	look(true)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	look(false)
}
