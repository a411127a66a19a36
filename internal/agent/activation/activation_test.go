package activation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// journal is a Recorder that remembers, and fails when it is told to.
type journal struct {
	mu    sync.Mutex
	marks map[string]Mark
	fail  func(Step, Mark) error
}

func (j *journal) Recall(_ context.Context, rollout string, step Step) (Mark, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.marks[rollout+string(step)], nil
}

func (j *journal) Record(_ context.Context, rollout string, step Step, m Mark) error {
	if j.fail != nil {
		if err := j.fail(step, m); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.marks == nil {
		j.marks = make(map[string]Mark)
	}
	j.marks[rollout+string(step)] = m
	return nil
}

// world is a machine on v1, and a rollout from v1 to a target.
type world struct {
	t     *testing.T
	cache *hosttest.Cache
	m     *dirhost.Machine
	v1    fleet.Closure
	rec   *journal
	spec  Spec
}

func newWorld(t *testing.T, targetScript string) *world {
	t.Helper()
	cache := hosttest.NewCache(t)
	w := &world{t: t, cache: cache, rec: &journal{}, v1: cache.Closure("v1", hosttest.Obey)}
	w.m = cache.NewMachine(w.v1)
	w.spec = Spec{
		Rollout:   "r2",
		Target:    cache.Closure("v2", targetScript),
		Prior:     w.v1,
		LockFile:  filepath.Join(t.TempDir(), "activation.lock"),
		Caches:    []string{cache.URL},
		CacheKeys: cache.Keys,
	}
	w.fetch(w.spec.Rollout, w.spec.Target)
	return w
}

func (w *world) fetch(rollout string, c fleet.Closure) {
	w.t.Helper()
	if err := w.m.Fetch(w.t.Context(), w.cache.Fetch(rollout, c)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) facts() host.Facts {
	w.t.Helper()
	f, err := w.m.Facts(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// write puts a file into the machine's directory, for its programs to find.
func (w *world) write(file, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.m.Dir(), file), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(file string) string {
	text, err := os.ReadFile(filepath.Join(w.m.Dir(), file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return string(text)
}

// appears waits for a file that a program of the machine writes.
func (w *world) appears(file string) {
	w.t.Helper()
	for w.read(file) == "" {
		select {
		case <-w.t.Context().Done():
			w.t.Errorf("%s did not appear", file)
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (w *world) doSwitch() (lifecycle.Body, error) {
	return Switch(w.t.Context(), w.m, w.spec, w.rec)
}

func (w *world) doRollback() (lifecycle.Body, error) {
	return Rollback(w.t.Context(), w.m, w.spec, w.rec)
}

// is fails the test when a step did not return a body of type B, and returns it.
func is[B lifecycle.Body](t *testing.T, body lifecycle.Body, err error) B {
	t.Helper()
	b, ok := body.(B)
	if !ok || err != nil {
		t.Fatalf("got %#v, %v; want a %T", body, err, b)
	}
	return b
}

// waits fails the test when a step did not return a Wait on the given thing.
func waits(t *testing.T, body lifecycle.Body, err error, on wire.WaitingOn) {
	t.Helper()
	var w *Wait
	if body != nil || !errors.As(err, &w) || w.On != on {
		t.Fatalf("got %#v, %v; want a wait on %s", body, err, on)
	}
}

func TestSwitchThenPersist(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	body, err := w.doSwitch()
	done := is[lifecycle.ActivationCompleted](t, body, err)
	f := w.facts()
	if done.ObservedCurrentClosure != w.spec.Target || done.ExitCode != 0 || done.BootID != f.BootID {
		t.Errorf("%+v", done)
	}
	if f.Current != w.spec.Target || f.BootDefault != w.v1 || f.Profile != w.v1 {
		t.Errorf("after the switch: %+v", f)
	}
	for range 2 { // the second time there is nothing to do
		body, err = Persist(t.Context(), w.m, w.spec)
		if got := is[lifecycle.Persisted](t, body, err); got != (lifecycle.Persisted{Generation: 2, BootDefaultVerified: true}) {
			t.Errorf("%+v", got)
		}
	}
	if f := w.facts(); f.BootDefault != w.spec.Target || f.Profile != w.spec.Target {
		t.Errorf("after persist: %+v", f)
	}
}

// The table of exit codes, on a machine whose programs really end so.
func TestExitTable(t *testing.T) {
	t.Parallel()
	const breaks = `printf 'new.service\nold.service\n' >"$NIXFLEET_ROOT/run/failed-units"; `
	for _, c := range []struct {
		name   string
		script string
		max    int
		want   lifecycle.Body // compared without texts
		says   string         // in the tail
		waits  wire.WaitingOn
	}{
		{name: "0, current = target", script: "live",
			want: lifecycle.ActivationCompleted{ExitCode: 0}},
		{name: "0, current = prior", script: "exit 0",
			want: lifecycle.ActivationFailed{ExitCode: 0, Phase: lifecycle.PhaseObserve, Mutated: true}, says: "nixos-system-v1 runs"},
		{name: "0, current = a third system", script: `ln -sfn ../nix/store/0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-third "$NIXFLEET_ROOT/run/current-system"`,
			want: lifecycle.ActivationFailed{ExitCode: 0, Phase: lifecycle.PhaseObserve, Mutated: true}, says: "third runs"},
		{name: "4, nothing failed newly", script: "live; exit 4",
			want: lifecycle.ActivationCompleted{ExitCode: 4}},
		{name: "4, newly failed units within the limit", script: "live; " + breaks + "exit 4", max: 1,
			want: lifecycle.ActivationCompleted{ExitCode: 4, NewFailedUnits: []string{"new.service"}}},
		{name: "4, newly failed units beyond it", script: "live; " + breaks + "exit 4",
			want: lifecycle.ActivationFailed{ExitCode: 4, Phase: lifecycle.PhaseObserve, Mutated: true}, says: "new.service"},
		{name: "4, current = prior", script: "exit 4",
			want: lifecycle.ActivationFailed{ExitCode: 4, Phase: lifecycle.PhaseObserve, Mutated: true}, says: "nixos-system-v1 runs"},
		{name: "11", script: "exit 11", waits: wire.WaitingOnSwitchLock},
		{name: "lock text", script: "echo Could not acquire lock >&2; exit 1", waits: wire.WaitingOnSwitchLock},
		{name: "1, pre-switch check", script: "echo \"Pre-switch check 'disk' failed\" >&2; echo Pre-switch checks failed >&2; exit 1",
			want: lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhasePreflight}, says: "Pre-switch check 'disk' failed"},
		{name: "1, for another reason", script: "echo Failed to connect to the bus >&2; exit 1",
			want: lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhaseSwitch, Mutated: true}, says: "Failed to connect to the bus"},
		{name: "1, current = target", script: "live; echo Pre-switch check >&2; exit 1",
			want: lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhaseSwitch, Mutated: true}},
		{name: "100, current = prior", script: "if [ $action = boot ]; then boots; exit; fi; exit 100",
			want: lifecycle.ActivationDeferred{Component: "init-interface"}},
		{name: "100, current = target", script: "live; exit 100",
			want: lifecycle.ActivationFailed{ExitCode: 100, Phase: lifecycle.PhaseSwitch, Mutated: true}},
		{name: "2", script: "live; exit 2",
			want: lifecycle.ActivationFailed{ExitCode: 2, Phase: lifecycle.PhaseSwitch, Mutated: true}},
		{name: "101", script: "echo panicked >&2; exit 101",
			want: lifecycle.ActivationFailed{ExitCode: 101, Phase: lifecycle.PhaseSwitch, Mutated: true}, says: "panicked"},
		{name: "killed", script: "live; kill -KILL $$",
			want: lifecycle.ActivationFailed{ExitCode: 137, Phase: lifecycle.PhaseSwitch, Mutated: true}, says: "ended with signal"},
		{name: "timed out, exit code 0", script: "live; trap 'exit 0' TERM; sleep 100 & wait",
			want: lifecycle.ActivationFailed{ExitCode: 143, Phase: lifecycle.PhaseSwitch, Mutated: true}, says: "ended with timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.script)
			w.write("run/failed-units", "old.service\n")
			w.spec.MaxFailedUnits = c.max
			if strings.HasPrefix(c.name, "timed out") {
				w.spec.SwitchTimeout = 300 * time.Millisecond
			}
			body, err := w.doSwitch()
			if c.waits != "" {
				waits(t, body, err, c.waits)
				return
			}
			tail := ""
			switch b := body.(type) {
			case lifecycle.ActivationCompleted:
				want := c.want.(lifecycle.ActivationCompleted)
				want.ObservedCurrentClosure, want.BootID = w.spec.Target, w.facts().BootID
				if err != nil || b.ExitCode != want.ExitCode || b.ObservedCurrentClosure != want.ObservedCurrentClosure ||
					b.BootID != want.BootID || strings.Join(b.NewFailedUnits, " ") != strings.Join(want.NewFailedUnits, " ") {
					t.Errorf("%+v, %v; want %+v", b, err, want)
				}
			case lifecycle.ActivationFailed:
				tail, b.StderrTail = b.StderrTail, ""
				if err != nil || b != c.want {
					t.Errorf("%+v, %v; want %+v", b, err, c.want)
				}
			default:
				if err != nil || body != c.want {
					t.Errorf("%#v, %v; want %+v", body, err, c.want)
				}
			}
			if !strings.Contains(tail, c.says) || len(tail) > host.OutputMax {
				t.Errorf("it says %q, want %q", tail, c.says)
			}
		})
	}
}

// 11: did not begin. The next call starts again, and does not find the old run.
func TestBusySwitchIsStartedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `if [ ! -e "$NIXFLEET_ROOT/free" ]; then exit 11; fi; obey`)
	for range 2 {
		body, err := w.doSwitch()
		waits(t, body, err, wire.WaitingOnSwitchLock)
	}
	w.write("free", "")
	body, err := w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
}

// A28: somebody else switches. It is seen without touching the lock.
func TestLockedMachineIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	if err := os.MkdirAll(filepath.Join(w.m.Dir(), "run/nixos"), 0o755); err != nil {
		t.Fatal(err)
	}
	other, err := Lock(t.Context(), filepath.Join(w.m.Dir(), "run/nixos/switch-to-configuration.lock"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := w.doSwitch()
	waits(t, body, err, wire.WaitingOnSwitchLock)
	other.Release()
	body, err = w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
}

// A1, A33: the agent stops in the middle, the next one finds the same run.
func TestSwitchIsReattached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `echo run >>"$NIXFLEET_ROOT/runs"; while [ ! -e "$NIXFLEET_ROOT/go" ]; do sleep 0.01; done; obey; exit 4`)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		w.appears("runs")
		stop()
	}()
	if body, err := Switch(ctx, w.m, w.spec, w.rec); !errors.Is(err, context.Canceled) {
		t.Fatalf("a stopped switch: %#v, %v", body, err)
	}
	w.write("go", "now")
	body, err := w.doSwitch()
	if done := is[lifecycle.ActivationCompleted](t, body, err); done.ExitCode != 4 {
		t.Errorf("%+v", done)
	}
	// And once more: a crash before the outcome was committed.
	body, err = w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
	if runs := w.read("runs"); runs != "run\n" {
		t.Errorf("it ran %d times", strings.Count(runs, "run"))
	}
}

// A crash between the start of the unit and the record of its id.
func TestUnrecordedRunIsAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `echo run >>"$NIXFLEET_ROOT/runs"; obey`)
	w.rec.fail = func(_ Step, m Mark) error {
		if m.RunID != "" {
			return errors.New("killed")
		}
		return nil
	}
	body, err := w.doSwitch()
	waits(t, body, err, wire.WaitingOnNone)
	w.rec.fail = nil
	body, err = w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
	if runs := w.read("runs"); runs != "run\n" {
		t.Errorf("it ran %d times", strings.Count(runs, "run"))
	}
}

// A35: a crash between the record and the start of the unit.
func TestNeverStartedIsStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	if err := w.rec.Record(t.Context(), "r2", StepSwitch, Mark{BootID: w.facts().BootID}); err != nil {
		t.Fatal(err)
	}
	body, err := w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
}

// A32: the result of another rollout's switch is not this one's.
func TestAnotherRolloutsRunDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "live; exit 2")
	body, err := w.doSwitch()
	is[lifecycle.ActivationFailed](t, body, err)
	w.spec.Rollout = "r3"
	w.spec.Ran = w.spec.Target
	w.spec.Target = w.cache.Closure("v3", hosttest.Obey)
	w.fetch("r3", w.spec.Target)
	body, err = w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
}

// A32: nor is another run's of the same switch, as somebody may have started it by
// hand: only a result with the recorded id counts.
func TestAnotherRunDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `echo run >>"$NIXFLEET_ROOT/runs"; obey`)
	body, err := w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
	mark, err := w.rec.Recall(t.Context(), w.spec.Rollout, StepSwitch)
	if err != nil {
		t.Fatal(err)
	}
	mark.RunID = "of a run that nobody saw end"
	if err := w.rec.Record(t.Context(), w.spec.Rollout, StepSwitch, mark); err != nil {
		t.Fatal(err)
	}
	body, err = w.doSwitch()
	waits(t, body, err, wire.WaitingOnNone)
	body, err = w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
	if got := strings.Count(w.read("runs"), "run"); got != 2 {
		t.Errorf("it ran %d times, want 2: the result of another run was taken", got)
	}
}

func TestRunOfAnotherBootDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	body, err := w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
	if err := w.m.PowerCycle(); err != nil {
		t.Fatal(err)
	}
	body, err = w.doSwitch() // a power cut is not a bad target: once more
	is[lifecycle.ActivationCompleted](t, body, err)
}

// Somebody else has made a third system live since the activation began: what he
// chose stays, and no unit is started over it.
func TestSomebodyElseHasSwitched(t *testing.T) {
	t.Parallel()
	const third = fleet.Closure("0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-third")
	for _, c := range []struct {
		name   string
		before func(w *world)
		do     func(w *world) (lifecycle.Body, error)
	}{
		{"before the switch", func(*world) {}, (*world).doSwitch},
		{"after it", func(w *world) {
			body, err := w.doSwitch()
			is[lifecycle.ActivationCompleted](t, body, err)
		}, (*world).doSwitch},
		{"before it is staged", func(*world) {}, func(w *world) (lifecycle.Body, error) { return Stage(t.Context(), w.m, w.spec) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, hosttest.Obey)
			c.before(w)
			w.makeLive(third)
			body, err := c.do(w)
			if gave := is[lifecycle.GaveUp](t, body, err); gave.Cause != lifecycle.CauseDrift {
				t.Errorf("given up for %s", gave.Cause)
			}
			if f := w.facts(); f.Current != third || f.BootDefault != w.v1 {
				t.Errorf("%s runs, %s boots", f.Current, f.BootDefault)
			}
		})
	}
}

// The system of a rollout that was superseded ran when this one began, and is no
// third one: neither before the switch nor when that did nothing.
func TestWhatRanIsNoThirdSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "if [ $action = boot ]; then boots; exit; fi; exit 100")
	w.spec.Ran = w.cache.Closure("v3", hosttest.Obey)
	w.makeLive(w.spec.Ran)
	body, err := w.doSwitch()
	is[lifecycle.ActivationDeferred](t, body, err)
}

func (w *world) makeLive(c fleet.Closure) {
	w.t.Helper()
	link := filepath.Join(w.m.Dir(), "run/current-system")
	if err := errors.Join(os.Remove(link), os.Symlink("../nix/store/"+string(c), link)); err != nil {
		w.t.Fatal(err)
	}
}

// A unit that was recorded and is not there has ended, nobody saw how.
func TestUnseenEnd(t *testing.T) {
	t.Parallel()
	forget := func(w *world) {
		if err := w.m.Clear(t.Context(), host.SlotSwitch); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("current is prior", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, "exit 0")
		body, err := w.doSwitch()
		is[lifecycle.ActivationFailed](t, body, err)
		forget(w)
		body, err = w.doSwitch()
		got := is[lifecycle.ActivationFailed](t, body, err)
		if got.ExitCode != exitUnseen || !got.Mutated || got.Phase != lifecycle.PhaseSwitch || !strings.Contains(got.StderrTail, "not seen") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("current is target", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, `echo run >>"$NIXFLEET_ROOT/runs"; live; exit 4`)
		body, err := w.doSwitch()
		is[lifecycle.ActivationCompleted](t, body, err)
		forget(w)
		// A2: the link alone is no success. Its program tells, the second time.
		body, err = w.doSwitch()
		waits(t, body, err, wire.WaitingOnNone)
		body, err = w.doSwitch()
		if got := is[lifecycle.ActivationCompleted](t, body, err); got.ExitCode != 4 {
			t.Errorf("%+v", got)
		}
		if got := strings.Count(w.read("runs"), "run"); got != 2 {
			t.Errorf("it ran %d times, want 2", got)
		}
		forget(w)
		body, err = w.doSwitch()
		if got := is[lifecycle.ActivationFailed](t, body, err); got.ExitCode != exitUnseen {
			t.Errorf("unseen for a second time: %+v", got)
		}
	})
}

// A21: what was broken before is not the switch's fault, also after a restart of
// the agent in the middle.
func TestUnitsBeforeAreRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `printf 'old.service\n' >"$NIXFLEET_ROOT/run/failed-units"; live; exit 4`)
	w.write("run/failed-units", "old.service\n")
	ctx, stop := context.WithCancel(t.Context())
	w.rec.fail = func(_ Step, m Mark) error {
		if m.RunID != "" {
			stop()
		}
		return nil
	}
	if _, err := Switch(ctx, w.m, w.spec, w.rec); err == nil {
		t.Fatal("it was not stopped")
	}
	w.rec.fail = nil
	body, err := w.doSwitch()
	if got := is[lifecycle.ActivationCompleted](t, body, err); len(got.NewFailedUnits) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestNewlyFailed(t *testing.T) {
	t.Parallel()
	before := host.Units{Failed: []string{"a"}, Restarts: map[string]uint32{"b": 3, "c": 1}}
	after := host.Units{Failed: []string{"a", "d"}, Restarts: map[string]uint32{"b": 3, "c": 2, "d": 1, "e": 1}}
	if got := strings.Join(newlyFailed(before, after), " "); got != "c d e" {
		t.Errorf("newly failed: %s", got)
	}
}

// Prior becomes the boot default before the switch begins.
func TestPriorIsMadeTheBootDefaultFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `cat "$NIXFLEET_ROOT/boot/default" >"$NIXFLEET_ROOT/default-then"; obey`)
	staged := w.cache.Closure("staged", hosttest.Obey)
	w.fetch("r1", staged)
	body, err := Persist(t.Context(), w.m, Spec{Rollout: "r1", Target: staged, LockFile: w.spec.LockFile})
	is[lifecycle.Persisted](t, body, err)
	body, err = w.doSwitch()
	is[lifecycle.ActivationCompleted](t, body, err)
	if got := strings.TrimSpace(w.read("default-then")); got != w.v1.Path() {
		t.Errorf("while it switched, %s booted", got)
	}
	if f := w.facts(); f.BootDefault != w.v1 || f.Profile != w.v1 {
		t.Errorf("%+v", f)
	}
}

func TestSwitchDoesNotBeginWhenPriorCannotBoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `echo run >>"$NIXFLEET_ROOT/runs"; obey`)
	w.spec.Ran = w.v1
	w.spec.Prior = w.cache.Closure("no-loader", `case $action in boot) echo no space left >&2; exit 1 ;; esac; obey`)
	w.fetch("r1", w.spec.Prior)
	body, err := w.doSwitch()
	got := is[lifecycle.ActivationFailed](t, body, err)
	if got.Phase != lifecycle.PhasePreflight || got.Mutated || got.ExitCode != 1 || !strings.Contains(got.StderrTail, "no space left") {
		t.Errorf("%+v", got)
	}
	if w.read("runs") != "" {
		t.Error("it was switched all the same")
	}
}

func TestTwoAtOnceExcludeEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `mkdir "$NIXFLEET_ROOT/alone" || exit 3; sleep 0.2; rmdir "$NIXFLEET_ROOT/alone"; echo run >>"$NIXFLEET_ROOT/runs"; obey`)
	type result struct {
		body lifecycle.Body
		err  error
	}
	results := make(chan result, 2)
	for range cap(results) {
		go func() {
			body, err := w.doSwitch()
			results <- result{body, err}
		}()
	}
	for range cap(results) {
		r := <-results
		is[lifecycle.ActivationCompleted](t, r.body, r.err)
	}
	if got := strings.Count(w.read("runs"), "run"); got != 1 {
		t.Errorf("it ran %d times", got)
	}
}

func TestActivationLockIsHeldByAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	guard, err := Lock(t.Context(), w.spec.LockFile)
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := Switch(ctx, w.m, w.spec, w.rec); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if f := w.facts(); f.Current != w.v1 {
		t.Errorf("%+v", f)
	}
}

func TestPersistFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		want   lifecycle.PersistFailed
	}{
		"loader fails":         {`echo no space >&2; exit 1`, lifecycle.PersistFailed{Phase: lifecycle.PhaseBoot, ExitCode: 1, StderrTail: "no space\n"}},
		"loader keeps the old": {`exit 0`, lifecycle.PersistFailed{Phase: lifecycle.PhaseReadback, ExitCode: 0}},
	} {
		w := newWorld(t, c.script)
		body, err := Persist(t.Context(), w.m, w.spec)
		got := is[lifecycle.PersistFailed](t, body, err)
		if got.Phase != c.want.Phase || got.ExitCode != c.want.ExitCode || !strings.Contains(got.StderrTail, c.want.StderrTail) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	const noted = `echo "$me $action ${NIXOS_NO_CHECK:-}" >>"$NIXFLEET_ROOT/calls"; `
	setUp := func(t *testing.T, script string) *world {
		w := newWorld(t, script)
		w.spec.Prior = w.cache.Closure("prior", noted+hosttest.Obey)
		w.fetch("r1", w.spec.Prior)
		w.live(w.spec.Prior)
		return w
	}
	calls := func(w *world) string {
		return strings.ReplaceAll(w.read("calls"), string(w.spec.Prior), "prior")
	}
	t.Run("after a switch", func(t *testing.T) {
		t.Parallel()
		w := setUp(t, hosttest.Obey)
		body, err := w.doSwitch()
		is[lifecycle.ActivationCompleted](t, body, err)
		w.write("calls", "")
		for range 2 { // the second time there is nothing to do
			body, err = w.doRollback()
			if got := is[lifecycle.RollbackComplete](t, body, err); got.RevertedToClosure != w.spec.Prior || got.ExitCode != 0 {
				t.Errorf("%+v", got)
			}
		}
		if f := w.facts(); f.Current != w.spec.Prior || f.BootDefault != w.spec.Prior || f.Profile != w.spec.Prior {
			t.Errorf("%+v", f)
		}
		if got := calls(w); got != "prior test \n" {
			t.Errorf("calls:\n%s", got)
		}
	})
	t.Run("after persist", func(t *testing.T) {
		t.Parallel()
		w := setUp(t, hosttest.Obey)
		body, err := w.doSwitch()
		is[lifecycle.ActivationCompleted](t, body, err)
		body, err = Persist(t.Context(), w.m, w.spec)
		is[lifecycle.Persisted](t, body, err)
		w.write("calls", "")
		body, err = w.doRollback()
		is[lifecycle.RollbackComplete](t, body, err)
		if f := w.facts(); f.Current != w.spec.Prior || f.BootDefault != w.spec.Prior || f.Profile != w.spec.Prior {
			t.Errorf("%+v", f)
		}
		if got := calls(w); got != "prior boot 1\nprior test \n" {
			t.Errorf("calls:\n%s", got)
		}
	})
	t.Run("staged only", func(t *testing.T) {
		t.Parallel()
		w := setUp(t, hosttest.Obey)
		body, err := Persist(t.Context(), w.m, w.spec)
		is[lifecycle.Persisted](t, body, err)
		w.write("calls", "")
		body, err = w.doRollback()
		is[lifecycle.RollbackComplete](t, body, err)
		if got := calls(w); got != "prior boot 1\n" {
			t.Errorf("calls:\n%s", got)
		}
	})
	t.Run("services stopped, link not moved", func(t *testing.T) {
		t.Parallel()
		w := setUp(t, "echo stopped services >&2; exit 1")
		body, err := w.doSwitch()
		is[lifecycle.ActivationFailed](t, body, err)
		w.write("calls", "")
		for range 2 {
			body, err = w.doRollback()
			is[lifecycle.RollbackComplete](t, body, err)
		}
		if got := calls(w); got != "prior test \n" {
			t.Errorf("prior's program has to start what was stopped, once; calls:\n%s", got)
		}
	})
	t.Run("the switch still runs", func(t *testing.T) {
		t.Parallel()
		w := setUp(t, `live; echo "$$" >"$NIXFLEET_ROOT/switching"; sleep 1000`)
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			w.appears("switching")
			stop()
		}()
		if _, err := Switch(ctx, w.m, w.spec, w.rec); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		body, err := w.doRollback()
		is[lifecycle.RollbackComplete](t, body, err)
		if f := w.facts(); f.Current != w.spec.Prior {
			t.Errorf("%+v", f)
		}
	})
	t.Run("units fail on the way back", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, "live; exit 2")
		w.spec.Prior = w.cache.Closure("prior", `obey; if [ $action = test ]; then exit 4; fi`)
		w.fetch("r1", w.spec.Prior)
		w.live(w.spec.Prior)
		body, err := w.doSwitch()
		is[lifecycle.ActivationFailed](t, body, err)
		body, err = w.doRollback()
		if got := is[lifecycle.RollbackComplete](t, body, err); got.ExitCode != 4 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("agent stopped in the middle", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hosttest.Obey)
		w.spec.Prior = w.cache.Closure("prior", `if [ $action = test ] && [ ! -e "$NIXFLEET_ROOT/go" ]; then echo run >>"$NIXFLEET_ROOT/runs"; while [ ! -e "$NIXFLEET_ROOT/go" ]; do sleep 0.01; done; fi; obey`)
		w.fetch("r1", w.spec.Prior)
		w.write("go", "")
		w.live(w.spec.Prior)
		body, err := w.doSwitch()
		is[lifecycle.ActivationCompleted](t, body, err)
		if err := os.Remove(filepath.Join(w.m.Dir(), "go")); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			w.appears("runs")
			stop()
		}()
		if _, err := Rollback(ctx, w.m, w.spec, w.rec); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		w.write("go", "now")
		body, err = w.doRollback()
		is[lifecycle.RollbackComplete](t, body, err)
		if runs := w.read("runs"); runs != "run\n" {
			t.Errorf("it ran %d times", strings.Count(runs, "run"))
		}
	})
	for name, c := range map[string]struct {
		prior string
		want  lifecycle.RollbackFailed
	}{
		"prior refuses":        {`if [ $action = test ]; then echo Pre-switch checks failed >&2; exit 1; fi; obey`, lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, ExitCode: 1, BootRequired: true}},
		"prior needs a boot":   {`if [ $action = test ]; then exit 100; fi; obey`, lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, ExitCode: 100, BootRequired: true}},
		"prior breaks":         {`if [ $action = test ]; then exit 2; fi; obey`, lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, ExitCode: 2}},
		"prior lies":           {`if [ $action = test ]; then exit 0; fi; obey`, lifecycle.RollbackFailed{Phase: lifecycle.PhaseObserve, ExitCode: 0}},
		"boot loader is full":  {`if [ $action = boot ]; then exit 1; fi; obey`, lifecycle.RollbackFailed{Phase: lifecycle.PhaseBoot, ExitCode: 1}},
		"boot loader does not": {`if [ $action = boot ]; then exit 0; fi; obey`, lifecycle.RollbackFailed{Phase: lifecycle.PhaseReadback, ExitCode: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hosttest.Obey)
			w.live(w.spec.Target)
			body, err := Persist(t.Context(), w.m, w.spec)
			is[lifecycle.Persisted](t, body, err)
			w.spec.Prior = w.cache.Closure("prior", c.prior)
			w.fetch("r1", w.spec.Prior)
			body, err = w.doRollback()
			got := is[lifecycle.RollbackFailed](t, body, err)
			got.StderrTail = ""
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			live := w.facts().Current == w.spec.Prior
			if want := strings.HasPrefix(name, "boot loader"); live != want {
				t.Errorf("prior is live: %v, want %v", live, want)
			}
		})
	}
	t.Run("another switch is under way", func(t *testing.T) {
		t.Parallel()
		w := setUp(t, hosttest.Obey)
		body, err := w.doSwitch()
		is[lifecycle.ActivationCompleted](t, body, err)
		if err := os.MkdirAll(filepath.Join(w.m.Dir(), "run/nixos"), 0o755); err != nil {
			t.Fatal(err)
		}
		other, err := Lock(t.Context(), filepath.Join(w.m.Dir(), "run/nixos/switch-to-configuration.lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Release()
		body, err = w.doRollback()
		waits(t, body, err, wire.WaitingOnSwitchLock)
	})
}

// live puts the machine on a closure that runs and boots.
func (w *world) live(c fleet.Closure) {
	w.t.Helper()
	body, err := Switch(w.t.Context(), w.m, Spec{Rollout: "setup", Target: c, Prior: w.v1, LockFile: w.spec.LockFile}, &journal{})
	is[lifecycle.ActivationCompleted](w.t, body, err)
	body, err = Persist(w.t.Context(), w.m, Spec{Rollout: "setup", Target: c, LockFile: w.spec.LockFile})
	is[lifecycle.Persisted](w.t, body, err)
}
