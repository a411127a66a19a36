package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The lab itself: a host boots, keeps its disk over a reboot, has a boot id of
// its own for every boot, and boots what its boot loader names.
func TestHostBootsAndReboots(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := Open(t)
	v1 := l.System("web-01", "1", l.Agent([]byte(deadAgent)), "")
	cache := l.Cache("good")
	cache.Push(v1)
	h := l.Host(ctx, "web-01", func(root string) error {
		return os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("web-01\n"), 0o644)
	})
	must := func(argv ...string) string {
		t.Helper()
		out, err := h.Exec(ctx, argv...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := must("cat", "/proc/sys/kernel/random/boot_id")
	h.install(ctx, t, cache, v1)
	if err := h.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if after := must("cat", "/proc/sys/kernel/random/boot_id"); after == before {
		t.Error("the boot id did not change")
	}
	if got := must("readlink", "/run/booted-system"); got != v1 {
		t.Errorf("booted %s, want %s", got, v1)
	}
}
