package agent_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/guard"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// guardProgram stands for the agent's own program, started as its guard.
const guardProgram = "/agent"

// runGuard is the guard of the world's agent: the real one, in virtual time, or
// in stories that are about the agent alone one that does nothing but watch.
func (w *world) runGuard(ctx context.Context) int {
	m, err := dirhost.Open(w.machine, dirhost.Options{Runner: w.runner})
	if err != nil {
		return 1
	}
	if w.noGuard {
		return 1
	}
	if !w.guards {
		if _, err := guard.FilesOf(m, w.path("state")).Watch(m.Clock()); err != nil {
			return 1
		}
		<-ctx.Done()
		return 0
	}
	err = guard.Run(ctx, guard.Config{
		Machine: m, StateDir: w.path("state"), Log: slog.New(slog.NewJSONHandler(&w.logged, nil)),
		ReadJournal: func(_ context.Context, file, rollout string) (guard.Journaled, error) {
			return guard.View(file, rollout)
		},
	})
	if err != nil {
		return 1
	}
	return 0
}

func (w *world) held() bool { return w.files().Held() }

func (w *world) files() guard.Files {
	m, err := dirhost.Open(w.machine, dirhost.Options{Runner: w.runner})
	w.must(err)
	return guard.FilesOf(m, w.path("state"))
}

// TestTheLeaseLivesAsLongAsItIsWanted: it is there before the switch begins, and
// gone when the rollout has ended.
func TestTheLeaseLivesAsLongAsItIsWanted(t *testing.T) {
	story(t, func(w *world) {
		w.guards = true
		begun := false
		w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			if action == "test" {
				begun = true
				if l, err := w.files().Lease(); err != nil || l == nil || l.Prior != w.v1 || l.Target != w.v2 || l.ConfirmBy == 0 || !w.files().Watched() {
					w.t.Errorf("the switch began with the lease %+v, %v", l, err)
				}
			}
			return obey(ctx, w, c, action)
		})
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.eventually("the lease is that of a confirmed soak", func() bool {
			l, err := w.files().Lease()
			return err == nil && l != nil && l.Confirmed && l.ConfirmBy == 0
		})
		w.until(r, lifecycle.Converged)
		time.Sleep(time.Second)
		if !begun || w.held() {
			t.Errorf("it was switched: %v; the lease of an ended rollout is there: %v", begun, w.held())
		}
		w.runsAndBoots(w.v2, w.v2)
	})
}

// TestALeaseThatNobodyWantsIsRemovedAtTheStart, whatever wrote it.
func TestALeaseThatNobodyWantsIsRemovedAtTheStart(t *testing.T) {
	for _, name := range []string{"lease", "lease.claimed"} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				r := w.release(w.v2)
				w.until(r, lifecycle.Converged)
				w.stop()
				w.write("state/"+name, []byte(`{"rollout": "`+r+`", "aliveSecs": 120}`))
				w.start()
				w.eventually("it is gone", func() bool { return !w.held() })
			})
		})
	}
}

// TestAnAgentThatDiesInItsSoakIsGuarded: the guard goes back, and the next agent
// tells so before it sees what became of the machine.
func TestAnAgentThatDiesInItsSoakIsGuarded(t *testing.T) {
	story(t, func(w *world) {
		w.guards = true
		w.policy.SoakSecsByWave = []int{3600}
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.eventually("it is persisted", func() bool { return w.mirror(r).Persisted })
		time.Sleep(40 * time.Minute) // the agent lives: nothing happens
		w.runsAndBoots(w.v2, w.v2)
		w.stop()
		died := time.Now()
		w.eventually("the guard goes back", func() bool { return w.current() == w.v1 && !w.held() })
		if took := time.Since(died); took < 90*time.Second || took > 140*time.Second {
			t.Errorf("it went back after %s", took)
		}
		w.start()
		h := w.until(r, lifecycle.Reverted)
		if h.Failure.Cause != lifecycle.CauseConfirm {
			t.Errorf("given up for %s", h.Failure.Cause)
		}
		w.runsAndBoots(w.v1, w.v1)
		if _, err := os.Stat(w.path("state/guard-outcome")); err == nil {
			t.Error("the outcome was not forgotten")
		}
	})
}

// TestWithoutAGuardNothingIsSwitched: twice it does not come up.
func TestWithoutAGuardNothingIsSwitched(t *testing.T) {
	story(t, func(w *world) {
		switched := false
		w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			switched = true
			return obey(ctx, w, c, action)
		})
		w.noGuard = true
		r := w.release(w.v2)
		h := w.until(r, lifecycle.Failed)
		if h.Failure.Phase != lifecycle.PhasePreflight || switched {
			t.Errorf("failed in phase %s, switched %v", h.Failure.Phase, switched)
		}
		w.eventually("the lease is gone", func() bool { return !w.held() })
		w.runsAndBoots(w.v1, w.v1)
	})
}

// TestAnAgentThatIsStartedWhileItsGuardActsWaits: the system that the guard goes
// back to may start it. What it would see by then is half of the truth.
func TestAnAgentThatIsStartedWhileItsGuardActsWaits(t *testing.T) {
	story(t, func(w *world) {
		w.policy.SoakSecsByWave = []int{3600}
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.stop()
		held, err := activation.Lock(t.Context(), w.path("state/activation.lock"))
		w.must(err)
		w.write("state/lease.claimed", []byte(`{"rollout": "`+r+`", "aliveSecs": 120}`))
		obey(t.Context(), w, w.v1, "test")
		w.start()
		time.Sleep(time.Minute)
		if s := w.mirror(r).State; s != lifecycle.Soaking {
			t.Errorf("it did not wait: the rollout is %s", s)
		}
		obey(t.Context(), w, w.v1, "boot")
		w.write("state/guard-outcome", []byte(`{"rollout": "`+r+`", "prior": "`+string(w.v1)+`", "why": "the agent was silent"}`))
		w.must(w.files().Remove())
		held.Release()
		h := w.until(r, lifecycle.Reverted)
		if h.Failure.Cause != lifecycle.CauseConfirm {
			t.Errorf("given up for %s", h.Failure.Cause)
		}
	})
}

// TestAGuardThatDiedInItsWorkIsFinishedFirst: it has gone back and has not told so.
// The agent that is started then must not take that for somebody else's doing.
func TestAGuardThatDiedInItsWorkIsFinishedFirst(t *testing.T) {
	story(t, func(w *world) {
		w.guards = true
		w.policy.SoakSecsByWave = []int{3600}
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.eventually("it is persisted", func() bool { return w.mirror(r).Persisted })
		w.stop()
		m, err := dirhost.Open(w.machine, dirhost.Options{Runner: w.runner})
		w.must(err)
		w.must(m.Clear(t.Context(), host.SlotGuard))
		w.must(os.Rename(w.path("state/lease"), w.path("state/lease.claimed")))
		_, err = m.SetProfile(t.Context(), w.v1)
		w.must(err)
		obey(t.Context(), w, w.v1, "boot")
		obey(t.Context(), w, w.v1, "test")
		w.start()
		h := w.until(r, lifecycle.Reverted)
		if h.Failure.Cause != lifecycle.CauseConfirm {
			t.Errorf("given up for %s", h.Failure.Cause)
		}
		w.eventually("nothing is left of the guard", func() bool { return !w.held() })
	})
}
