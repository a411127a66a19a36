package dirhost_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

func facts(t *testing.T, m host.Machine) host.Facts {
	t.Helper()
	f, err := m.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ended waits for the end of the slot's run.
func ended(t *testing.T, m host.Machine, s host.Slot) host.Run {
	t.Helper()
	for {
		run, err := m.Status(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if run.Phase != host.RunRunning {
			return run
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s did not end", s)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func start(t *testing.T, m host.Machine, s host.Slot, c host.Command) string {
	t.Helper()
	id, err := m.Start(t.Context(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func fetch(t *testing.T, m host.Machine, f host.Fetch) {
	t.Helper()
	if err := m.Fetch(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func TestInstalledMachineRunsAndBootsItsClosure(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1 := cache.Closure("v1", hosttest.Obey)
	m := cache.NewMachine(v1)
	f := facts(t, m)
	want := host.Facts{Current: v1, Booted: v1, Profile: v1, Generation: 1, BootDefault: v1, BootDefaultVerified: true, BootID: f.BootID, System: host.System()}
	if f != want || f.BootID == "" {
		t.Errorf("facts %+v, want %+v", f, want)
	}
}

func TestTestIsLostAtPowerCycleAndBootIsNot(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1, v2 := cache.Closure("v1", hosttest.Obey), cache.Closure("v2", hosttest.Obey)
	m := cache.NewMachine(v1)
	boot := facts(t, m).BootID
	fetch(t, m, cache.Fetch("r2", v2))
	id := start(t, m, host.SlotSwitch, host.Command{Rollout: "r2", Closure: v2, Action: host.ActionTest})
	run := ended(t, m, host.SlotSwitch)
	if !run.Exited(0) || run.ID != id || run.Rollout != "r2" || run.Closure != v2 || run.Action != host.ActionTest || run.Result != host.ResultSuccess {
		t.Fatalf("run %+v", run)
	}
	if f := facts(t, m); f.Current != v2 || f.BootDefault != v1 {
		t.Fatalf("after test: %+v", f)
	}
	if err := m.PowerCycle(); err != nil {
		t.Fatal(err)
	}
	f := facts(t, m)
	if f.Current != v1 || f.BootID == boot {
		t.Fatalf("after the power cycle: %+v", f)
	}
	if run, err := m.Status(t.Context(), host.SlotSwitch); err != nil || run.Phase != host.RunAbsent {
		t.Errorf("a unit outlived the boot: %+v, %v", run, err)
	}
	start(t, m, host.SlotBoot, host.Command{Rollout: "r2", Closure: v2, Action: host.ActionBoot})
	ended(t, m, host.SlotBoot)
	if err := m.PowerCycle(); err != nil {
		t.Fatal(err)
	}
	if f := facts(t, m); f.Current != v2 || f.Booted != v2 {
		t.Errorf("after boot and power cycle: %+v", f)
	}
}

func TestEndsOfUnits(t *testing.T) {
	cache := hosttest.NewCache(t)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	for name, c := range map[string]struct {
		script string
		result string
		code   int
		output string
	}{
		"success": {"echo did it", host.ResultSuccess, 0, "did it\n"},
		"exit-4":  {"echo failed: a.service >&2; exit 4", host.ResultExitCode, 4, "failed: a.service\n"},
		"signal":  {"kill -KILL $$", host.ResultSignal, 137, ""},
		"long":    {"i=0; while [ $i -lt 9000 ]; do echo $i; i=$((i+1)); done", host.ResultSuccess, 0, "\n8999\n"},
		"binary":  {`printf 'a\377\000b'`, host.ResultSuccess, 0, "a\uFFFD\x00b"},
	} {
		closure := cache.Closure(name, c.script)
		fetch(t, m, cache.Fetch("r", closure))
		if err := m.Clear(t.Context(), host.SlotSwitch); err != nil {
			t.Fatal(err)
		}
		start(t, m, host.SlotSwitch, host.Command{Rollout: "r", Closure: closure, Action: host.ActionTest})
		run := ended(t, m, host.SlotSwitch)
		if run.Phase != host.RunEnded || run.Result != c.result || run.ExitCode != c.code || !strings.HasSuffix(run.Output, c.output) || len(run.Output) > host.OutputMax {
			t.Errorf("%s: %+v", name, run)
		}
	}
}

// A25: an empty program is no success, and neither is one that is not there.
func TestProgramsThatCannotBeExecuted(t *testing.T) {
	cache := hosttest.NewCache(t)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	for name, files := range map[string]map[string]string{
		"empty":  {"bin/switch-to-configuration": ""},
		"text":   {"bin/switch-to-configuration": "exit 0\n"},
		"absent": {"bin/other": "#!/bin/sh\n"},
		"folder": {"bin/switch-to-configuration/x": ""},
	} {
		closure := cache.Tree(name, files)
		fetch(t, m, cache.Fetch("r", closure))
		if err := m.Clear(t.Context(), host.SlotSwitch); err != nil {
			t.Fatal(err)
		}
		start(t, m, host.SlotSwitch, host.Command{Rollout: "r", Closure: closure, Action: host.ActionTest})
		if run := ended(t, m, host.SlotSwitch); !run.Exited(203) || run.Output == "" {
			t.Errorf("%s: %+v", name, run)
		}
	}
}

func TestTimedOutUnitIsKilledAsAWhole(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1 := cache.Closure("v1", hosttest.Obey)
	hangs := cache.Closure("hangs", `sleep 1000 & echo $! >"$NIXFLEET_ROOT/child"; trap 'exit 0' TERM; wait`)
	m := cache.NewMachine(v1)
	fetch(t, m, cache.Fetch("r", hangs))
	start(t, m, host.SlotSwitch, host.Command{Rollout: "r", Closure: hangs, Action: host.ActionTest, Timeout: 200 * time.Millisecond})
	run := ended(t, m, host.SlotSwitch)
	if run.Result != host.ResultTimeout || run.Exited(0) {
		t.Errorf("run %+v", run)
	}
	if again := ended(t, m, host.SlotSwitch); again != run {
		t.Errorf("a second look says %+v, the first %+v", again, run)
	}
	gone(t, m, "child")
}

// gone fails the test when the process whose id a closure wrote to a file lives.
func gone(t *testing.T, m *dirhost.Machine, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Dir(), file))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	// A killed process is a zombie until whoever inherited it looks.
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err == nil && !bytes.Contains(stat, []byte(") Z ")) && syscall.Kill(pid, 0) == nil {
		t.Errorf("process %d lives", pid)
	}
}

func TestSameSlotTwiceIsRefused(t *testing.T) {
	cache := hosttest.NewCache(t)
	slow := cache.Closure("slow", `while [ ! -e "$NIXFLEET_ROOT/go" ]; do sleep 0.01; done; live`)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	fetch(t, m, cache.Fetch("r", slow))
	c := host.Command{Rollout: "r", Closure: slow, Action: host.ActionTest}
	id := start(t, m, host.SlotSwitch, c)
	if _, err := m.Start(t.Context(), host.SlotSwitch, c); !errors.Is(err, host.ErrSlotTaken) {
		t.Errorf("while it runs: %v", err)
	}
	if err := os.WriteFile(filepath.Join(m.Dir(), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if run := ended(t, m, host.SlotSwitch); run.ID != id {
		t.Errorf("run %+v, want the first, %s", run, id)
	}
	if _, err := m.Start(t.Context(), host.SlotSwitch, c); !errors.Is(err, host.ErrSlotTaken) {
		t.Errorf("when it has ended: %v", err)
	}
	// Many at once: one wins.
	if err := m.Clear(t.Context(), host.SlotSwitch); err != nil {
		t.Fatal(err)
	}
	won := make(chan error, 8)
	for range cap(won) {
		go func() {
			_, err := m.Start(t.Context(), host.SlotSwitch, c)
			won <- err
		}()
	}
	wins := 0
	for range cap(won) {
		switch err := <-won; {
		case err == nil:
			wins++
		case !errors.Is(err, host.ErrSlotTaken):
			t.Error(err)
		}
	}
	if wins != 1 {
		t.Errorf("%d of %d starts at once succeeded", wins, cap(won))
	}
}

func TestClearStopsWhatRuns(t *testing.T) {
	cache := hosttest.NewCache(t)
	hangs := cache.Closure("hangs", `echo $$ >"$NIXFLEET_ROOT/child"; sleep 1000`)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	fetch(t, m, cache.Fetch("r", hangs))
	start(t, m, host.SlotSwitch, host.Command{Rollout: "r", Closure: hangs, Action: host.ActionTest})
	for {
		if text, err := os.ReadFile(filepath.Join(m.Dir(), "child")); err == nil && len(text) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for range 2 {
		if err := m.Clear(t.Context(), host.SlotSwitch); err != nil {
			t.Fatal(err)
		}
	}
	if run, err := m.Status(t.Context(), host.SlotSwitch); err != nil || run != (host.Run{}) {
		t.Errorf("%+v, %v", run, err)
	}
	gone(t, m, "child")
}

// TestMain lets the tests start themselves as another agent.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DIRHOST_TEST_AGENT"); dir != "" {
		agent(dir)
	}
	os.Exit(m.Run())
}

// agent starts a unit and waits for its end, until it is killed.
func agent(dir string) {
	m, err := dirhost.Open(dir, dirhost.Options{})
	if err == nil {
		_, err = m.Start(context.Background(), host.SlotSwitch, host.Command{Rollout: "r", Closure: fleet.Closure(os.Getenv("DIRHOST_TEST_CLOSURE")), Action: host.ActionTest})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("started\n")
	select {}
}

// A1, A7: the switch outlives its agent, and the next agent reads its result.
func TestUnitOutlivesItsAgent(t *testing.T) {
	cache := hosttest.NewCache(t)
	slow := cache.Closure("slow", `while [ ! -e "$NIXFLEET_ROOT/go" ]; do sleep 0.01; done; live; echo late words; exit 4`)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	fetch(t, m, cache.Fetch("r", slow))
	dir := m.Dir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "DIRHOST_TEST_AGENT="+dir, "DIRHOST_TEST_CLOSURE="+string(slow))
	other.Stderr = os.Stderr
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	other.Wait() // it was killed
	run, err := m.Status(t.Context(), host.SlotSwitch)
	if err != nil || run.Phase != host.RunRunning || run.ID == "" {
		t.Fatalf("after its agent was killed: %+v, %v", run, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	end := ended(t, m, host.SlotSwitch)
	if !end.Exited(4) || end.ID != run.ID || end.Output != "late words\n" {
		t.Errorf("its end: %+v", end)
	}
	if f := facts(t, m); f.Current != slow {
		t.Errorf("facts %+v", f)
	}
}

func TestUnitThatVanishedIsUnknown(t *testing.T) {
	cache := hosttest.NewCache(t)
	hangs := cache.Closure("hangs", `sleep 1000`)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	fetch(t, m, cache.Fetch("r", hangs))
	c := host.Command{Rollout: "r", Closure: hangs, Action: host.ActionTest}
	start(t, m, host.SlotSwitch, c)
	if err := (dirhost.Processes{}).Kill(filepath.Join(m.Dir(), "run/units/nixfleet-switch"), true); err != nil {
		t.Fatal(err)
	}
	if run, err := m.Status(t.Context(), host.SlotSwitch); err != nil || run != (host.Run{}) {
		t.Errorf("%+v, %v", run, err)
	}
	if err := m.Clear(t.Context(), host.SlotSwitch); err != nil {
		t.Fatal(err)
	}
	start(t, m, host.SlotSwitch, c)
}

func TestFailedFetches(t *testing.T) {
	cache := hosttest.NewCache(t)
	v2 := cache.Closure("v2", hosttest.Obey)
	other := hosttest.NewCache(t)
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) }))
	defer silent.Close()
	corrupt := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".nar") {
			w.Write([]byte("no archive"))
			return
		}
		http.FileServer(http.Dir(cache.Dir)).ServeHTTP(w, r)
	}))
	defer corrupt.Close()
	down := httptest.NewServer(nil)
	down.Close()
	unsigned := hosttest.NewCache(t)
	if got := unsigned.Closure("v2", hosttest.Obey); got != v2 {
		t.Fatal("the same closure has another name in another cache")
	}
	for name, c := range map[string]struct {
		caches, keys []string
		want         host.FetchKind
	}{
		"not there":                 {[]string{other.URL}, cache.Keys, host.FetchMissing},
		"no cache":                  {nil, cache.Keys, host.FetchMissing},
		"unpinned key":              {[]string{cache.URL}, other.Keys, host.FetchBadSignature},
		"unpinned key, not there":   {[]string{cache.URL, other.URL}, other.Keys, host.FetchBadSignature},
		"no keys":                   {[]string{cache.URL}, nil, host.FetchNoKeys},
		"cache down":                {[]string{down.URL}, cache.Keys, host.FetchCacheDown},
		"cache in trouble":          {[]string{silent.URL}, cache.Keys, host.FetchCacheDown},
		"unsigned, the other down":  {[]string{unsigned.URL, down.URL}, cache.Keys, host.FetchCacheDown},
		"corrupt":                   {[]string{corrupt.URL}, cache.Keys, host.FetchCorrupt},
		"trusted without signature": {[]string{cache.URL + "?trusted=1"}, cache.Keys, host.FetchOther},
	} {
		m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
		err := m.Fetch(t.Context(), host.Fetch{Rollout: "r", Closure: v2, Caches: c.caches, CacheKeys: c.keys})
		var fetchErr *host.FetchError
		if !errors.As(err, &fetchErr) || fetchErr.Kind != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if _, err := os.Stat(m.Path(v2)); err == nil {
			t.Errorf("%s: it is in the store", name)
		}
		// The next fetch, from a good cache, succeeds.
		fetch(t, m, host.Fetch{Rollout: "r", Closure: v2, Caches: []string{down.URL, unsigned.URL, corrupt.URL, cache.URL}, CacheKeys: cache.Keys})
	}
}

func TestFetchBelievesNoFolder(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1, v2 := cache.Closure("v1", hosttest.Obey), cache.Closure("v2", hosttest.Obey)
	m := cache.NewMachine(v1)
	// A26: somebody put something there.
	if err := os.MkdirAll(m.Path(v2)+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	fetch(t, m, cache.Fetch("r", v2))
	if _, err := os.Stat(m.Path(v2) + "/bin/switch-to-configuration"); err != nil {
		t.Error(err)
	}
	// A24: a power cut emptied it.
	program := m.Path(v2) + "/bin/switch-to-configuration"
	if err := errors.Join(os.Chmod(program, 0o755), os.Truncate(program, 0)); err != nil {
		t.Fatal(err)
	}
	again := cache.Fetch("r", v2)
	again.Repair = true
	fetch(t, m, again)
	if info, err := os.Stat(program); err != nil || info.Size() == 0 {
		t.Errorf("not repaired: %v, %v", info, err)
	}
	// Valid before, but by another's signature.
	stranger, err := nix.GenerateKey("stranger-1")
	if err != nil {
		t.Fatal(err)
	}
	again = host.Fetch{Rollout: "r", Closure: v2, CacheKeys: []string{stranger.Public().String()}}
	if err := m.Fetch(t.Context(), again); err == nil {
		t.Error("a path that no pinned key signed was taken, because it was there")
	}
}

func TestCancelledFetch(t *testing.T) {
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	defer server.Close()
	defer close(release)
	cache := hosttest.NewCache(t)
	v2 := cache.Closure("v2", hosttest.Obey)
	m := cache.NewMachine(cache.Closure("v1", hosttest.Obey))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	err := m.Fetch(ctx, host.Fetch{Rollout: "r", Closure: v2, Caches: []string{server.URL}, CacheKeys: cache.Keys})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestProfileNumbersLikeNixEnv(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1, v2 := cache.Closure("v1", hosttest.Obey), cache.Closure("v2", hosttest.Obey)
	m := cache.NewMachine(v1)
	fetch(t, m, cache.Fetch("r", v2))
	for i, step := range []struct {
		set  fleet.Closure
		want int
	}{{v1, 1}, {v2, 2}, {v2, 2}, {v1, 3}, {v1, 3}, {v2, 4}} {
		n, err := m.SetProfile(t.Context(), step.set)
		if err != nil || n != step.want {
			t.Errorf("step %d: generation %d, %v; want %d", i, n, err, step.want)
		}
		if f := facts(t, m); f.Profile != step.set || f.Generation != step.want || f.BootDefault != v1 {
			t.Errorf("step %d: %+v", i, f)
		}
	}
	if _, err := m.SetProfile(t.Context(), "0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-absent"); err == nil {
		t.Error("set to a closure that is not there")
	}
}

func TestRoots(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1, v2 := cache.Closure("v1", hosttest.Obey), cache.Closure("v2", hosttest.Obey)
	m := cache.NewMachine(v1)
	fetch(t, m, cache.Fetch("r2", v2))
	roots := func() (held []string) {
		links, err := filepath.Glob(filepath.Join(m.Dir(), "nix/var/nix/gcroots/nixfleet/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			target, err := filepath.EvalSymlinks(l)
			if err != nil {
				t.Errorf("a root leads nowhere: %v", err)
			}
			held = append(held, filepath.Base(target))
		}
		return held
	}
	for _, want := range [][]fleet.Closure{{v1, v2}, {v2}, {v2, v1}, {v1, v2, "0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-absent"}, {}} {
		if err := m.SetRoots(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if held := roots(); len(held) != min(len(want), 2) {
			t.Errorf("SetRoots(%v) holds %v", want, held)
		}
	}
}

func TestUnitsAndLocks(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1 := cache.Closure("v1", hosttest.Obey)
	breaks := cache.Closure("breaks", `printf 'b.service\na.service\n' >"$NIXFLEET_ROOT/run/failed-units"; exit 4`)
	m := cache.NewMachine(v1)
	if u, err := m.Units(t.Context()); err != nil || len(u.Failed) != 0 || !u.Settled {
		t.Errorf("%+v, %v", u, err)
	}
	fetch(t, m, cache.Fetch("r", breaks))
	start(t, m, host.SlotSwitch, host.Command{Rollout: "r", Closure: breaks, Action: host.ActionTest})
	ended(t, m, host.SlotSwitch)
	if u, err := m.Units(t.Context()); err != nil || strings.Join(u.Failed, " ") != "a.service b.service" {
		t.Errorf("%+v, %v", u, err)
	}
	if held, err := m.SwitchLocked(t.Context()); held || err != nil {
		t.Errorf("locked %v, %v", held, err)
	}
	if s, err := m.Space(t.Context()); err != nil || s.Store == 0 || !s.BootKnown {
		t.Errorf("%+v, %v", s, err)
	}
	if err := m.Reboot(t.Context()); !errors.Is(err, host.ErrNotSupported) {
		t.Errorf("reboot: %v", err)
	}
}

func TestFunctionsRunInVirtualTime(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1 := cache.Closure("v1", hosttest.Obey)
	dir := cache.NewMachine(v1).Dir()
	synctest.Test(t, func(t *testing.T) {
		units := &dirhost.Functions{Program: func(ctx context.Context, u dirhost.Unit, out *os.File) int {
			out.WriteString(strings.Join(u.Args, " "))
			select {
			case <-ctx.Done():
				return 1
			case <-time.After(time.Hour):
				return 4
			}
		}}
		m, err := dirhost.Open(dir, dirhost.Options{Runner: units})
		if err != nil {
			t.Fatal(err)
		}
		c := host.Command{Rollout: "r", Closure: v1, Action: host.ActionTest}
		start(t, m, host.SlotSwitch, c)
		time.Sleep(59 * time.Minute)
		if run, err := m.Status(t.Context(), host.SlotSwitch); err != nil || run.Phase != host.RunRunning {
			t.Errorf("%+v, %v", run, err)
		}
		time.Sleep(2 * time.Minute)
		if run, err := m.Status(t.Context(), host.SlotSwitch); err != nil || !run.Exited(4) || run.Output != "test" {
			t.Errorf("%+v, %v", run, err)
		}
		c.Timeout = time.Minute
		start(t, m, host.SlotBoot, c)
		time.Sleep(2 * time.Minute)
		if run, err := m.Status(t.Context(), host.SlotBoot); err != nil || run.Result != host.ResultTimeout {
			t.Errorf("%+v, %v", run, err)
		}
		start(t, m, host.SlotRollback, c)
		if err := m.PowerCycle(); err != nil {
			t.Error(err)
		}
		if run, err := m.Status(t.Context(), host.SlotRollback); err != nil || run != (host.Run{}) {
			t.Errorf("%+v, %v", run, err)
		}
		if err := units.Close(); err != nil {
			t.Error(err)
		}
	})
}
