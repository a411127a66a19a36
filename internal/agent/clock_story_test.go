package agent_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// clocked has the machine's clock say what a test sets: how far it is off, and
// whether it is synchronised.
func (w *world) clocked(policy agent.ClockPolicy) (set func(off time.Duration, synchronised bool)) {
	var off time.Duration
	synchronised := true
	w.config = func(c *agent.Config) {
		c.ClockPolicy, c.MaxClockSkew = policy, 5*time.Minute
		c.Clock = func() agent.ClockState {
			w.mu.Lock()
			defer w.mu.Unlock()
			return agent.ClockState{Now: time.Now().Add(off), Synchronised: synchronised, Service: true}
		}
	}
	return func(o time.Duration, s bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		off, synchronised = o, s
	}
}

// waitsForClock tells whether the last heartbeat that said so says that the host
// waits for its clock.
func (c *controlPlane) waitsForClock() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range slices.Backward(c.beats) {
		if b.WaitingOn != nil {
			return slices.Contains(b.WaitingOn, wire.WaitingOnClock)
		}
	}
	return false
}

// suspects checks that the one order there is was refused for the clock.
func (w *world) suspects(why string) {
	w.t.Helper()
	time.Sleep(time.Minute) // of the story's time, in which an agent has answered
	synctest.Wait()
	w.cp.locked(func() {
		if len(w.cp.rejects) != 1 {
			w.t.Fatalf("%d orders were refused", len(w.cp.rejects))
		}
		if r := w.cp.rejects[0]; r.Reason != wire.RejectClockSuspect || !strings.Contains(r.Detail, why) {
			w.t.Errorf("refused as %s: %s; want %s", r.Reason, r.Detail, why)
		}
	})
}

func TestASuspectClockStopsNewTargetsOnly(t *testing.T) {
	for _, policy := range []agent.ClockPolicy{agent.ClockRequire, agent.ClockAuto} {
		t.Run(string(policy), func(t *testing.T) {
			story(t, func(w *world) {
				w.stop()
				set := w.clocked(policy)
				w.start()
				first := w.release(w.v2)
				w.until(first, lifecycle.Soaking)

				set(0, false)
				w.release(w.v3)
				w.suspects("not synchronised")
				w.until(first, lifecycle.Converged) // what was under way goes on
				w.eventually("a heartbeat says so", w.cp.waitsForClock)
				if w.current() != w.v2 {
					t.Errorf("it runs %s", w.current())
				}

				set(0, true)
				w.eventually("a heartbeat says that it is over", func() bool { return !w.cp.waitsForClock() })
				w.until(w.release(w.v3), lifecycle.Converged)
			})
		})
	}
}

// A clock that fell back (an empty battery, a time server that lies) is below the
// floor under every policy, also after a restart and without the journal.
func TestTheFloorSurvivesARestartAndALostJournal(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"a restart":         func(*world) {},
		"a lost journal":    func(w *world) { w.must(os.Remove(w.path("state/journal.db"))) },
		"a lost marks file": func(w *world) { w.must(os.Remove(w.path("state/marks.json"))) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.stop()
				set := w.clocked(agent.ClockTrust)
				w.start()
				w.until(w.release(w.v2), lifecycle.Converged)
				time.Sleep(6 * time.Hour) // nothing is accepted in these
				w.stop()
				lose(w)

				set(-4*time.Hour, true) // after everything that was signed
				w.start()
				w.release(w.v3)
				w.suspects("already")
				set(0, false)
				w.until(w.release(w.v3), lifecycle.Converged)
			})
		})
	}
}

// C26: a boot with a clock that is years ahead leaves nothing behind.
func TestAWrongClockAtBootRaisesNoFloor(t *testing.T) {
	story(t, func(w *world) {
		w.stop()
		set := w.clocked(agent.ClockAuto)
		set(30*365*24*time.Hour, false)
		w.start()
		w.release(w.v2)
		w.suspects("not synchronised")
		time.Sleep(3 * time.Hour)
		w.stop()
		set(0, true)
		w.start()
		w.until(w.release(w.v2), lifecycle.Converged)
	})
}

// A Date header that is far off is reported, and nothing comes of it.
func TestASkewedControlPlaneIsReportedAndNotFollowed(t *testing.T) {
	story(t, func(w *world) {
		w.stop()
		w.clocked(agent.ClockRequire)
		w.cp.locked(func() { w.cp.skew = -time.Hour }) // so this host is ahead
		w.start()
		offset := func() (ms int64) {
			w.cp.locked(func() {
				for _, b := range slices.Backward(w.cp.beats) {
					if b.Clock != nil {
						ms = b.Clock.OffsetMs
						return
					}
				}
			})
			return ms
		}
		w.eventually("a heartbeat says how far", func() bool { return offset() == time.Hour.Milliseconds() })
		if w.cp.waitsForClock() {
			t.Error("a control plane's clock makes the host's suspect")
		}
		w.until(w.release(w.v2), lifecycle.Converged)
		const logged = `"offset":"1h0m0s","limit":"5m0s","beyond":true`
		if !strings.Contains(w.logText(), logged) {
			t.Errorf("the log does not say %s", logged)
		}

		w.cp.locked(func() { w.cp.skew = 0 })
		w.eventually("a heartbeat says that it is over", func() bool { return offset() == 0 })
		if !strings.Contains(w.logText(), `"beyond":false`) {
			t.Error("the log does not say that it is over")
		}
	})
}
