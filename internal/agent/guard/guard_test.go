package guard_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nixfleet/internal/agent/guard"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
)

// asAgent makes this test program be the agent of the machine in a directory.
const asAgent = "NIXFLEET_TEST_AGENT_OF"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asAgent); dir != "" {
		machine, err := dirhost.Open(dir, dirhost.Options{})
		if err == nil {
			_, err = machine.BeAgent(context.Background())
		}
		if err != nil {
			panic(err)
		}
		select {}
	}
	os.Exit(m.Run())
}

// world is a machine that was taken from v1 to v2, with real processes, and a
// lease that says so.
type world struct {
	t      *testing.T
	m      *dirhost.Machine
	files  guard.Files
	lease  guard.Lease
	config guard.Config
	v1, v2 fleet.Closure
}

// newWorld leaves a lease whose agent was never heard of again.
func newWorld(t *testing.T, v1Script string) *world {
	t.Helper()
	t.Parallel()
	cache := hosttest.NewCache(t)
	w := &world{t: t, v1: cache.Closure("v1", v1Script), v2: cache.Closure("v2", hosttest.Obey)}
	w.m = cache.NewMachine(w.v1)
	stateDir := t.TempDir()
	w.files = guard.FilesOf(w.m, stateDir)
	w.must(w.m.Fetch(t.Context(), cache.Fetch("r", w.v2)))
	w.run(host.SlotSwitch, host.ActionTest)
	_, err := w.m.SetProfile(t.Context(), w.v2)
	w.must(err)
	w.run(host.SlotBoot, host.ActionBoot)
	w.sees(w.v2, w.v2)
	facts, err := w.m.Facts(t.Context())
	w.must(err)
	w.lease = guard.Lease{Rollout: "r", Target: w.v2, Prior: w.v1, Agent: "/agent", BootID: facts.BootID, AliveSecs: 1}
	w.config = guard.Config{Machine: w.m, StateDir: stateDir, Log: slog.New(slog.NewJSONHandler(t.Output(), nil)), ReadJournal: journaled(true)}
	return w
}

func journaled(wanted bool) func(context.Context, string, string) (guard.Journaled, error) {
	return func(context.Context, string, string) (guard.Journaled, error) {
		return guard.Journaled{Known: true, Wanted: wanted}, nil
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run(s host.Slot, a host.Action) {
	w.t.Helper()
	w.must(w.m.Clear(w.t.Context(), s))
	_, err := w.m.Start(w.t.Context(), s, host.Command{Rollout: "r", Closure: w.v2, Action: a})
	w.must(err)
	for {
		run, err := w.m.Status(w.t.Context(), s)
		w.must(err)
		if run.Phase == host.RunEnded {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) sees(runs, boots fleet.Closure) {
	w.t.Helper()
	f, err := w.m.Facts(w.t.Context())
	w.must(err)
	if f.Current != runs || f.BootDefault != boots || f.Profile != boots {
		w.t.Errorf("runs %s, boots %s, profile %s; want %s and %s", f.Current, f.BootDefault, f.Profile, runs, boots)
	}
}

// silent writes the lease and a last sign of life that is too old.
func (w *world) silent() {
	w.t.Helper()
	w.must(w.files.Write(w.lease))
	w.must(w.files.Touch(w.m.Clock() - time.Minute))
}

// guard runs a guard to its end.
func (w *world) guard() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	w.must(guard.Run(ctx, w.config))
	if ctx.Err() != nil {
		w.t.Fatal("the guard did not end")
	}
}

// wentBack checks that the machine is on v1 as a whole, and that this is told.
func (w *world) wentBack(why string) {
	w.t.Helper()
	w.sees(w.v1, w.v1)
	o, err := w.files.Outcome()
	if err != nil || o == nil || o.Rollout != "r" || o.Prior != w.v1 || !strings.Contains(o.Why, why) {
		w.t.Errorf("outcome %+v, %v; want one that says %q", o, err, why)
	}
	if w.files.Held() {
		w.t.Error("there still is a lease")
	}
}

// An agent that is stuck, stopped by a signal, and holds the machine is ended
// first. It stays down until all is done.
func TestGuardEndsAStuckAgentAndGoesBack(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), asAgent+"="+w.m.Dir())
	w.must(agent.Start())
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	place := filepath.Join(w.m.Dir(), "run/agent")
	for text, _ := os.ReadFile(place); len(text) == 0; text, _ = os.ReadFile(place) {
		time.Sleep(10 * time.Millisecond)
	}
	w.must(agent.Process.Signal(syscall.SIGSTOP))
	w.silent()
	w.guard()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the agent lives")
	}
	w.wentBack("silent")
	release, err := w.m.BeAgent(t.Context()) // the next one may start
	w.must(err)
	release()
}

// A36: the agent lives and shows it, but nothing was confirmed in time.
func TestGuardDoesNotBelieveAnAgentThatConfirmsNothing(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	w.lease.AliveSecs, w.lease.WindowSecs, w.lease.ConfirmBy = 20, 1, int64(w.m.Clock()+time.Second)
	w.must(w.files.Write(w.lease))
	w.must(w.files.Touch(w.m.Clock()))
	w.guard()
	w.wentBack("confirmed")
}

// A31: the agent died between the end of its rollout and the end of its lease.
func TestGuardDoesNothingThatTheJournalDoesNotWant(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	w.config.ReadJournal = journaled(false)
	w.silent()
	w.guard()
	w.sees(w.v2, w.v2)
	if o, err := w.files.Outcome(); o != nil || err != nil || w.files.Held() {
		t.Errorf("outcome %+v, %v; lease %v", o, err, w.files.Held())
	}
}

func TestGuardActsOnAJournalThatCannotBeRead(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	w.config.ReadJournal = func(context.Context, string, string) (guard.Journaled, error) {
		return guard.Journaled{}, errors.New("signal: bus error")
	}
	w.silent()
	w.guard()
	w.wentBack("silent")
}

// One that was killed in the middle of it goes on, however alive the agent is.
func TestGuardGoesOnWithAClaim(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	w.lease.Why = "the agent was silent for a day"
	w.must(w.files.Write(w.lease))
	w.must(os.Rename(filepath.Join(w.config.StateDir, "lease"), filepath.Join(w.config.StateDir, "lease.claimed")))
	w.must(w.files.Touch(w.m.Clock()))
	w.guard()
	w.wentBack("silent for a day")
}

// A guard is stopped when the machine goes down: the one of the next boot decides.
func TestGuardThatIsStoppedLeavesTheLease(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	w.lease.AliveSecs = 600
	w.must(w.files.Write(w.lease))
	w.must(w.files.Touch(w.m.Clock()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- guard.Run(ctx, w.config) }()
	for !w.files.Watched() {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	w.must(<-ended)
	w.sees(w.v2, w.v2)
	if !w.files.Held() {
		t.Error("the lease is gone")
	}
}

// A30: a lease of another boot counts from the beginning of this one.
func TestGuardOfABoot(t *testing.T) {
	w := newWorld(t, hosttest.Obey)
	w.lease.WindowSecs, w.lease.AliveSecs, w.lease.Confirmed = 1, 20, true
	w.must(w.files.Write(w.lease))
	w.must(w.m.PowerCycle())
	w.sees(w.v2, w.v2)
	w.guard()
	w.wentBack("confirmed")
}

// rebooted is a machine that is asked for boots, and may be in maintenance.
type rebooted struct {
	*dirhost.Machine
	state host.SystemState
	asked atomic.Int32
	then  func()
	no    int32 // how often it is refused at first
}

func (m *rebooted) SystemState(context.Context) (host.SystemState, error) { return m.state, nil }

func (m *rebooted) Reboot(context.Context) error {
	if m.asked.Add(1) <= m.no {
		return errors.New("somebody blocks it")
	}
	m.then()
	return nil
}

// What cannot be made live is booted into: once, and prior is the boot default by
// then. The guard of that boot finishes.
func TestGuardFinishesByABoot(t *testing.T) {
	for _, c := range []struct {
		name   string
		script string // of v1
		state  host.SystemState
		differ string // a component that differs, and may not be swapped live
	}{
		{"in maintenance nothing is made live", hosttest.Obey, host.SystemMaintenance, ""},
		{"A29: prior's program cannot make it live", `if [ $action = test ]; then exit 1; fi; obey`, host.SystemUp, ""},
		{"A18: prior has another D-Bus", hosttest.Obey, host.SystemUp, "dbus"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.script)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			m := &rebooted{Machine: w.m, state: c.state, then: cancel} // the boot ends the guard
			w.config.Machine = m
			w.lease.DeferOn = c.differ
			if c.differ != "" {
				for _, system := range []fleet.Closure{w.v1, w.v2} {
					unit := filepath.Join(w.m.Path(system), "etc/systemd/system", c.differ+".service")
					w.must(os.MkdirAll(filepath.Dir(unit), 0o755))
					w.must(os.WriteFile(unit, []byte(system), 0o644))
				}
			}
			w.silent()
			w.must(guard.Run(ctx, w.config))
			w.sees(w.v2, w.v1)
			release, err := w.m.BeAgent(t.Context()) // nobody keeps the agent down meanwhile
			w.must(err)
			release()
			if n := m.asked.Load(); n != 1 {
				t.Fatalf("it asked for %d boots", n)
			}
			if l, err := w.files.Lease(); err != nil || l == nil || !l.Rebooted {
				t.Fatalf("the lease of the boot is %+v, %v", l, err)
			}
			w.must(w.m.PowerCycle())
			w.config.Machine = w.m
			w.guard()
			w.wentBack("silent for 60 s")
		})
	}
}

// A boot that is refused is asked for again, one that led nowhere is not: prior is
// made live as soon as that is possible.
func TestGuardAsksForOneBoot(t *testing.T) {
	w := newWorld(t, `if [ $action = test ] && [ ! -e "$NIXFLEET_ROOT/mended" ]; then exit 1; fi; obey`)
	m := &rebooted{Machine: w.m, state: host.SystemUp, no: 1, then: func() {
		w.must(os.WriteFile(filepath.Join(w.m.Dir(), "mended"), nil, 0o644))
	}}
	w.config.Machine = m
	w.silent()
	w.guard()
	if n := m.asked.Load(); n != 2 {
		t.Errorf("it asked for %d boots, of which one was refused", n)
	}
	w.wentBack("silent")
}
