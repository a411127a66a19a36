package guard

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzLease: a lease that can be read is claimed as it is, never puts itself off,
// and gets a verdict whatever is in it.
func FuzzLease(f *testing.F) {
	for _, l := range []Lease{
		{},
		{Rollout: "stable@01", Target: "b", Prior: "a", Agent: "/nix/store/x/bin/agent", BootID: "1", ConfirmBy: 5, WindowSecs: 60, AliveSecs: 120, DeferOn: "dbus", NextBoot: true},
		{BootID: "1", ConfirmBy: -1, WindowSecs: -1, AliveSecs: -1, Confirmed: true, Rebooted: true},
	} {
		text, err := json.Marshal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, int64(time.Minute), true)
	}
	f.Add([]byte(`{"rollout": "stable@01", "aliveSecs": 1e3}`), int64(0), false)
	f.Add([]byte(`{"aliveSecs": `), int64(0), false)
	f.Fuzz(func(t *testing.T, text []byte, now int64, sameBoot bool) {
		dir := t.TempDir()
		files := Files{StateDir: dir, BootDir: filepath.Join(dir, "boot")}
		if err := os.WriteFile(files.lease(), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if !files.Held() {
			t.Fatal("there is a lease")
		}
		l, err := files.Lease()
		if err != nil {
			return
		}
		sight := Sight{Now: time.Duration(now), BootID: "1", Alive: now%2 == 0, Switching: now%3 == 0}
		if sameBoot {
			sight.BootID = l.BootID
		}
		verdict, why := Decide(*l, sight)
		if (verdict == Watch) != (why == "") {
			t.Fatalf("%v, because %q", verdict, why)
		}
		if !l.Extends(*l) {
			t.Fatalf("written again it would put itself off: %+v", l)
		}
		if err := files.claim(*l); err != nil {
			t.Fatal(err)
		}
		claimed, err := files.Lease()
		if err != nil || *claimed != *l || !files.Claimed() {
			t.Fatalf("claimed it is %+v (%v), it was %+v", claimed, err, l)
		}
	})
}

// FuzzClockFile: a sign of life is a number and nothing else, and stays the one
// that it is.
func FuzzClockFile(f *testing.F) {
	for _, text := range []string{"1\n", "0", "-5", "", "1 2", "9223372036854775808", "0x1", "\x00"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "alive")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		clock, ok, err := readClock(path)
		if ok == (err != nil) {
			t.Fatalf("%q is %d, %t, %v", text, clock, ok, err)
		}
		n, notANumber := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if ok != (notANumber == nil) || ok && time.Duration(n) != clock {
			t.Fatalf("%q is %d, %t", text, clock, ok)
		}
		if !ok {
			return
		}
		if err := writeClock(path, clock); err != nil {
			t.Fatal(err)
		}
		if again, ok, err := readClock(path); again != clock || !ok || err != nil {
			t.Fatalf("%d came back as %d: %v", clock, again, err)
		}
	})
}
