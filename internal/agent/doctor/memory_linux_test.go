package doctor

import (
	"os"
	"strings"
	"testing"
)

// TestAStateDirectoryInMemoryIsFound on the tmpfs that every Linux has.
func TestAStateDirectoryInMemoryIsFound(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "doctor-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := stateDirectory{dir}.look(t.Context())
	if f.Verdict != Wrong || !strings.Contains(f.Detail, "in memory") || !strings.Contains(f.Remedy, "--state-dir") {
		t.Errorf("%+v", f)
	}
}
