package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// inhibited gives a closure that may not be made live while the host's first one
// runs, nor the first while it does.
func (w *world) inhibited() fleet.Closure {
	w.t.Helper()
	list := func(value string) map[string]string {
		return map[string]string{"switch-inhibitors": `{"dbus-implementation": "` + value + `"}`}
	}
	first := filepath.Join(w.machine, "nix/store", string(w.v1), "switch-inhibitors")
	w.must(os.WriteFile(first, []byte(list("dbus")["switch-inhibitors"]), 0o644))
	c := w.cache.ClosureWith("inhibited", hosttest.Obey, list("broker"))
	for _, closure := range []fleet.Closure{w.v1, c} {
		w.setProgram(closure, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			if action == "test" {
				w.t.Errorf("%s was made live", c)
			}
			return obey(ctx, w, c, action)
		})
	}
	return c
}

// bootInto makes a closure the boot default behind the agent's back.
func (w *world) bootInto(c fleet.Closure) {
	w.t.Helper()
	if code := obey(w.t.Context(), w, c, "boot"); code != 0 {
		w.t.Fatal(code)
	}
}

const deferredKinds = "DispatchAck ActivationStarted ActivationDeferred"

func TestATargetThatMayNotBeMadeLiveIsBootedInto(t *testing.T) {
	story(t, func(w *world) {
		target := w.inhibited()
		r := w.release(target)
		h := w.until(r, lifecycle.Deferred)
		w.wantKinds(r, deferredKinds)
		w.runsAndBoots(w.v1, target)
		if h.SwitchMethod != lifecycle.MethodBoot || h.Prior != w.v1 {
			t.Errorf("method %s, prior %s", h.SwitchMethod, h.Prior)
		}
		time.Sleep(3 * time.Hour)
		w.crash() // and nothing of it is forgotten
		w.start()
		time.Sleep(time.Hour)
		if h := w.mirror(r); h.State != lifecycle.Deferred {
			t.Errorf("without a boot it is %s", h.State)
		}
		w.powerCut()
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(target, target)
	})
}

func TestATargetThatRefusesToBeMadeLiveIsBootedInto(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			if action == "test" {
				return 100
			}
			return obey(ctx, w, c, action)
		})
		r := w.release(w.v2)
		w.until(r, lifecycle.Deferred)
		w.wantKinds(r, deferredKinds)
		w.runsAndBoots(w.v1, w.v2)
		w.powerCut()
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
	})
}

func TestAStagedHostBootsInItsWindow(t *testing.T) {
	story(t, func(w *world) {
		target := w.inhibited()
		w.policy.Reboot = fleet.RebootInWindow
		w.policy.RebootWindow = &fleet.RebootWindow{Start: "02:00", Minutes: 60}
		r := w.release(target)
		w.until(r, lifecycle.Deferred)
		if now := time.Now().UTC(); now.Hour() >= 2 {
			t.Fatalf("it was staged as late as %s", now)
		}
		w.eventually("it asks for a boot", func() bool { return strings.HasSuffix(w.cp.kinds(r), "RebootStarted") })
		if now := time.Now().UTC(); now.Hour() != 2 {
			t.Errorf("it asked for a boot at %s", now)
		}
		// This machine does not boot itself. It is not told again, and when the window
		// has closed it is left alone until the next.
		time.Sleep(2 * time.Hour)
		w.wantKinds(r, deferredKinds+" RebootStarted")
		var on []wire.WaitingOn // the last that was said: what has not changed is left out
		w.cp.locked(func() {
			for _, b := range w.cp.beats {
				if len(b.WaitingOn) > 0 {
					on = b.WaitingOn
				}
			}
		})
		if !slices.Contains(on, wire.WaitingOnWindow) {
			t.Errorf("after the window it waits on %s", on)
		}
		w.powerCut()
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(target, target)
	})
}

// A19: staged, and the old system was booted.
func TestAStagedHostThatBootsTheOldSystemGivesUp(t *testing.T) {
	story(t, func(w *world) {
		target := w.inhibited()
		r := w.release(target)
		w.until(r, lifecycle.Deferred)
		w.bootInto(w.v1)
		w.powerCut()
		h := w.until(r, lifecycle.Reverted)
		if h.Failure.Phase != lifecycle.PhaseBoot {
			t.Errorf("given up in phase %s", h.Failure.Phase)
		}
		w.runsAndBoots(w.v1, w.v1)
	})
}

func TestAStagedHostIsTakenBackBySignal(t *testing.T) {
	story(t, func(w *world) {
		target := w.inhibited()
		r := w.release(target)
		w.until(r, lifecycle.Deferred)
		w.signal(r)
		w.until(r, lifecycle.Reverted)
		w.wantKinds(r, deferredKinds+" RollbackSignal RollbackComplete")
		w.runsAndBoots(w.v1, w.v1)
	})
}

// A29: prior cannot be made live under the target. It becomes the boot default,
// and the machine boots although its policy leaves boots to people.
func TestTheWayBackThatOnlyABootFinishes(t *testing.T) {
	story(t, func(w *world) {
		target := w.inhibited()
		r := w.release(target)
		w.until(r, lifecycle.Deferred)
		w.setProbe(1)
		w.powerCut()
		w.eventually("it asks for a boot", func() bool { return strings.Contains(w.cp.kinds(r), "RebootStarted") })
		w.runsAndBoots(target, w.v1)
		if h := w.mirror(r); h.State != lifecycle.Failed || !h.RollbackByBoot {
			t.Errorf("%s, by boot: %t", h.State, h.RollbackByBoot)
		}
		w.powerCut()
		w.until(r, lifecycle.Reverted)
		w.runsAndBoots(w.v1, w.v1)
	})
}

// A newer release takes over from a staged one: what was staged is taken back
// first, and prior is still what runs.
func TestAStagedTargetIsSuperseded(t *testing.T) {
	story(t, func(w *world) {
		target := w.inhibited()
		first := w.release(target)
		w.until(first, lifecycle.Deferred)
		second := w.release(w.v3)
		h := w.until(second, lifecycle.Converged)
		if h.Prior != w.v1 {
			t.Errorf("prior %s", h.Prior)
		}
		w.until(first, lifecycle.Superseded)
		w.runsAndBoots(w.v3, w.v3)
	})
}
