package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// powerCut ends the agent and the machine at once, and boots the machine again.
func (w *world) powerCut() {
	w.t.Helper()
	w.crash()
	w.runner.Close()
	m, err := dirhost.Open(w.machine, dirhost.Options{Dial: w.net.dial, Runner: w.runner})
	w.must(err)
	w.must(m.PowerCycle())
	w.start()
}

func TestAPowerCutBeforePersistIsTriedOnceMore(t *testing.T) {
	story(t, func(w *world) {
		w.policy.Persist = fleet.PersistConverged
		w.policy.SoakSecsByWave = []int{1800}
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		time.Sleep(time.Minute)
		w.powerCut()
		w.runsAndBoots(w.v1, w.v1)
		h := w.until(r, lifecycle.Soaking)
		w.eventually("the target is live again", func() bool { h = w.mirror(r); return h.Retried && h.State == lifecycle.Soaking })
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
	})
}

func TestASecondPowerCutGivesUp(t *testing.T) {
	story(t, func(w *world) {
		w.policy.Persist = fleet.PersistConverged
		w.policy.SoakSecsByWave = []int{1800}
		r := w.release(w.v2)
		for n := range 2 {
			w.eventually("the target is live", func() bool {
				h := w.mirror(r)
				return h.State == lifecycle.Soaking && h.Retried == (n == 1)
			})
			time.Sleep(time.Minute)
			w.powerCut()
		}
		h := w.until(r, lifecycle.Reverted)
		if h.Failure.Phase != lifecycle.PhaseBoot {
			t.Errorf("given up in phase %s", h.Failure.Phase)
		}
		w.runsAndBoots(w.v1, w.v1)
	})
}

func TestARebootAfterPersistIsConfirmedAgain(t *testing.T) {
	story(t, func(w *world) {
		w.policy.SoakSecsByWave = []int{1800}
		r := w.release(w.v2)
		w.eventually("it is persisted", func() bool { return w.mirror(r).Persisted })
		w.powerCut()
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
		confirmations := 0
		for _, e := range w.cp.decoded(r) {
			if e.Body.Kind() == lifecycle.KindConfirmed {
				confirmations++
			}
		}
		if confirmations != 2 {
			t.Errorf("confirmed %d times, in 2 boots", confirmations)
		}
	})
}

func TestAPowerCutInTheSwitch(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v2, takes(time.Minute, obey))
		r := w.release(w.v2)
		w.eventually("the switch runs", func() bool { return w.mirror(r).Mutated })
		time.Sleep(10 * time.Second)
		w.powerCut()
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
	})
}

func TestSomebodyElseSwitchesTheHost(t *testing.T) {
	t.Run("in the soak", func(t *testing.T) {
		story(t, func(w *world) {
			w.policy.SoakSecsByWave = []int{1800}
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			obey(t.Context(), w, w.v3, "test")
			h := w.until(r, lifecycle.Failed)
			if h.Failure.Cause != lifecycle.CauseDrift || h.RollbackOwed {
				t.Errorf("cause %s, rollback owed: %t", h.Failure.Cause, h.RollbackOwed)
			}
			time.Sleep(time.Hour)
			w.runsAndBoots(w.v3, w.v2) // theirs stays
		})
	})
	t.Run("later", func(t *testing.T) {
		story(t, func(w *world) {
			r := w.release(w.v2)
			w.until(r, lifecycle.Converged)
			obey(t.Context(), w, w.v3, "test")
			w.eventually("it is reported", func() bool { return w.mirror(r).Drifted })
			w.runsAndBoots(w.v3, w.v2)
		})
	})
}

// A switch may make a specialisation of its system live, which is another path.
func TestASpecialisationOfTheTargetIsNoDrift(t *testing.T) {
	story(t, func(w *world) {
		w.policy.SoakSecsByWave = []int{600}
		w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			code := obey(ctx, w, c, action)
			if action == "test" {
				dir := filepath.Join(w.machine, "nix/store", string(c), "specialisation")
				if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(w.v3.Path(), filepath.Join(dir, "vm"))); err != nil {
					t.Error(err)
				}
				obey(ctx, w, w.v3, action)
			}
			return code
		})
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		w.wantKinds(r, happy)
	})
}

func TestATargetThatNoCacheHas(t *testing.T) {
	story(t, func(w *world) {
		w.policy.ActivationDeadlineSecs = 3600
		missing := fleet.Closure("00000000000000000000000000000001-nixos-system-gone")
		r := w.release(missing)
		h := w.until(r, lifecycle.Failed)
		if h.Failure.Phase != lifecycle.PhaseFetch || h.RollbackOwed || h.Active < 3600 {
			t.Errorf("failed in phase %s after %d s, rollback owed: %t", h.Failure.Phase, h.Active, h.RollbackOwed)
		}
		w.runsAndBoots(w.v1, w.v1)
		w.until(w.release(w.v2), lifecycle.Converged)
	})
}

func TestATargetThatNoPinnedKeySigned(t *testing.T) {
	story(t, func(w *world) {
		keys := w.cache.Keys
		w.cache.Keys = []string{"stranger-1:" + strings.Repeat("A", 43) + "="}
		w.writeRoots(w.ci.Public(), string(w.caPEM()))
		r := w.release(w.v2)
		h := w.until(r, lifecycle.Failed)
		if !h.Failure.BadSignature {
			t.Errorf("%+v", h.Failure)
		}
		w.wantKinds(r, "DispatchAck ActivationFailed")
		w.cache.Keys = keys
		w.writeRoots(w.ci.Public(), string(w.caPEM())) // read again, without a restart
		w.until(w.release(w.v3), lifecycle.Converged)
	})
}

func (w *world) caPEM() []byte {
	raw, err := os.ReadFile(w.path("ca.pem"))
	w.must(err)
	return raw
}

func TestNewlyFailedUnits(t *testing.T) {
	story(t, func(w *world) {
		failed := filepath.Join(w.machine, "run/failed-units")
		w.must(os.WriteFile(failed, []byte("old.service\n"), 0o644)) // was so before
		one := fleet.FailedUnits{Max: 1}
		w.policy.HealthGate.SystemdFailedUnits = &one
		w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			w.must(os.WriteFile(failed, []byte("old.service\nnew.service\n"), 0o644))
			obey(ctx, w, c, action)
			return 4
		})
		w.until(w.release(w.v2), lifecycle.Converged)

		w.setProgram(w.v3, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			go func() { // some fail later
				time.Sleep(20 * time.Second)
				w.must(os.WriteFile(failed, []byte("a.service\nb.service\nold.service\n"), 0o644))
			}()
			return obey(ctx, w, c, action)
		})
		w.policy.SoakSecsByWave = []int{600}
		h := w.until(w.release(w.v3), lifecycle.Reverted)
		if h.Failure.Cause != lifecycle.CauseProbes {
			t.Errorf("given up for %s", h.Failure.Cause)
		}
	})
}

// TestAManifestOfAnOlderProducer has no policy: it is completed from the fleet
// document that its hash names, and from no other.
func TestAManifestOfAnOlderProducer(t *testing.T) {
	publishFleet := func(w *world) string {
		now := time.Now().UTC().Truncate(time.Second)
		key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFtwR9yIhjkpIEpdXTjPnh6CuIDvN0iuCd3ZwwFzAvn0"
		target := w.v2
		minutes := 2
		f := fleet.Fleet{
			SchemaVersion:   1,
			Hosts:           map[string]fleet.Host{host1: {System: "x86_64-linux", Tags: []string{}, Channel: channel, ClosureHash: &target, Pubkey: &key}},
			Channels:        map[string]fleet.Channel{channel: {RolloutPolicy: "all", FreshnessWindow: 1440, SigningIntervalMinutes: 60, ReconcileIntervalMinutes: 5}},
			RolloutPolicies: map[string]fleet.RolloutPolicy{"all": {Strategy: "waves", Waves: []fleet.PolicyWave{{Selector: fleet.Selector{All: true}, SoakMinutes: minutes}}, Policy: fleet.DefaultPolicy()}},
			Waves:           map[string][]fleet.Wave{channel: {{Hosts: []string{host1}, SoakMinutes: minutes}}},
			Edges:           []fleet.Edge{}, ChannelEdges: []fleet.Edge{}, DisruptionBudgets: []fleet.Budget{},
			Meta: fleet.Meta{SchemaVersion: 1, SignedAt: &now},
		}
		doc, err := json.Marshal(f)
		w.must(err)
		sig, err := trust.SignDocument(doc, w.ci)
		w.must(err)
		w.cp.locked(func() { w.cp.documents[wire.PathFleet] = signed{doc, sig} })
		canonical, err := trust.Canonical(doc)
		w.must(err)
		return trust.Sum(canonical)
	}
	older := func(hash string) func(*fleet.Manifest) {
		return func(m *fleet.Manifest) { m.Policy, m.FreshnessWindowMinutes, m.FleetResolvedHash = nil, 0, hash }
	}
	story(t, func(w *world) {
		hash := publishFleet(w)
		r := w.release(w.v2, older(hash))
		w.eventually("it has converged", func() bool { return strings.Contains(w.cp.kinds(r), "Converged") })
		w.wantKinds(r, happy)
		w.runsAndBoots(w.v2, w.v2)

		w.release(w.v3, older(strings.Repeat("1", 64)))
		w.eventually("another fleet's is refused", func() bool { return w.cp.refusals() == 1 })
		if got := w.cp.rejects[0].Reason; got != wire.RejectReason(trust.ErrMismatch) {
			t.Errorf("refused as %s", got)
		}
	})
}
