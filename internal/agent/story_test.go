package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

const happy = "DispatchAck ActivationStarted ActivationCompleted ProbeTopologyDeclared Persisted Converged"

func (w *world) wantKinds(rollout, want string) {
	w.t.Helper()
	if got := w.cp.kinds(rollout); got != want {
		w.t.Errorf("events of %s:\n got %s\nwant %s", rollout, got, want)
	}
}

func TestAHostFollowsARelease(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		h := w.until(r, lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
		w.wantKinds(r, happy)
		if h.Prior != w.v1 || h.Active < 60 || !h.Confirmed {
			t.Errorf("prior %s, confirmed %t, converged after %d s", h.Prior, h.Confirmed, h.Active)
		}
	})
}

func TestAHostThatRunsTheTargetAlreadyChangesNothing(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v1, func(context.Context, *world, fleet.Closure, string) int {
			t.Error("a switch program ran")
			return 0
		})
		r := w.release(w.v1)
		h := w.until(r, lifecycle.Converged)
		w.wantKinds(r, "DispatchAck ActivationStarted ActivationCompleted ProbeTopologyDeclared Converged")
		if !h.Unchanged() || h.SwitchMethod != lifecycle.MethodNone {
			t.Errorf("prior %s, method %s", h.Prior, h.SwitchMethod)
		}
	})
}

func TestTargetsThatAreRefused(t *testing.T) {
	_, strangersKey, _ := ed25519.GenerateKey(rand.Reader)
	stranger, err := trust.NewSigner(strangersKey)
	if err != nil {
		t.Fatal(err)
	}
	signedAgo := func(d time.Duration) func(*fleet.Manifest) {
		return func(m *fleet.Manifest) {
			at := time.Now().UTC().Add(-d)
			m.Meta.SignedAt = &at
		}
	}
	for _, test := range []struct {
		name, reason string
		publish      func(w *world) string
	}{
		{"stale", "stale", func(w *world) string { return w.release(w.v2, signedAgo(25*time.Hour)) }},
		{"from the future", "future-dated", func(w *world) string { return w.release(w.v2, signedAgo(-2*time.Minute)) }},
		{"signed by a stranger", "bad-signature", func(w *world) string {
			m := w.manifest(w.v2)
			w.publish(m, stranger)
			w.order(m.ID())
			return m.ID()
		}},
		{"for others", "not-in-manifest", func(w *world) string {
			return w.release(w.v2, func(m *fleet.Manifest) { m.HostSet[0].Hostname = "web-02" })
		}},
		{"not published", "no-manifest", func(w *world) string {
			w.order("stable@00ff")
			return "stable@00ff"
		}},
		{"another rollout's manifest", "mismatch", func(w *world) string {
			m := w.manifest(w.v2)
			w.publish(m, w.ci)
			w.cp.locked(func() {
				w.cp.documents[wire.Fill(wire.PathManifest, "stable@00ff")] = w.cp.documents[wire.Fill(wire.PathManifest, m.ID())]
			})
			w.order("stable@00ff")
			return "stable@00ff"
		}},
		{"not a document", "malformed", func(w *world) string {
			w.cp.locked(func() { w.cp.documents[wire.Fill(wire.PathManifest, "stable@00ff")] = signed{[]byte("{"), nil} })
			w.order("stable@00ff")
			return "stable@00ff"
		}},
		{"older than one that was accepted", "older-than-accepted", func(w *world) string {
			w.until(w.release(w.v2), lifecycle.Converged)
			return w.release(w.v3, signedAgo(time.Hour))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(w *world) {
				r := test.publish(w)
				w.eventually("the order is refused", func() bool { return w.cp.refusals() > 0 })
				got := w.cp.rejects[0]
				if string(got.Reason) != test.reason || got.RolloutID != r || got.Detail == "" || got.RetryAfterSecs < 60 || got.RetryAfterSecs > 1800 {
					t.Errorf("got %+v, want reason %s", got, test.reason)
				}
				if events := w.cp.kinds(r); events != "" {
					t.Errorf("events of a rollout that was refused: %s", events)
				}
			})
		})
	}
}

func TestRefusalsBackOff(t *testing.T) {
	story(t, func(w *world) {
		for i, want := range []int{60, 120, 240, 480, 960, 1800, 1800} {
			w.order("stable@00ff")
			w.eventually("the order is refused", func() bool { return w.cp.refusals() == i+1 })
			if got := w.cp.rejects[i].RetryAfterSecs; got != want {
				t.Errorf("refusal %d: again after %d s, want %d", i, got, want)
			}
		}
	})
}

func TestARolloutThatIsPublishedAgainWithAnotherPlanIsNotFollowed(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		w.order(m.ID())
		w.until(m.ID(), lifecycle.Converged)

		changed := *m
		changed.HostSet = []fleet.Target{{Hostname: host1, TargetClosure: w.v3}}
		later := time.Now().UTC()
		changed.Meta.SignedAt = &later
		accepted := w.cp.documents[wire.Fill(wire.PathManifest, m.ID())]
		w.publish(&changed, w.ci)
		w.order(m.ID())
		w.eventually("it was looked at", func() bool { return strings.Contains(w.logText(), "republished") })
		w.cp.locked(func() { w.cp.documents[wire.Fill(wire.PathManifest, m.ID())] = accepted })
		w.runsAndBoots(w.v2, w.v2)
		w.wantKinds(m.ID(), happy)
	})
}

func TestAManifestThatIsSignedAgainIsTaken(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		w.order(m.ID())
		w.until(m.ID(), lifecycle.Converged)
		time.Sleep(time.Hour)
		later := time.Now().UTC().Truncate(time.Second)
		m.Meta.SignedAt = &later
		w.publish(m, w.ci)
		time.Sleep(10 * time.Minute)
		w.stop()
		w.journal(func(tx *journal.Tx) {
			self, _ := tx.Self()
			if !self.Marks.Manifest.SignedAt.Equal(later) {
				t.Errorf("the mark is of %s, want %s", self.Marks.Manifest.SignedAt, later)
			}
			d, ok, _ := tx.Document(m.ID())
			if v, err := trust.Accepted[fleet.Manifest](d.Entry); !ok || err != nil || !v.SignedAt().Equal(later) {
				t.Errorf("the journal holds the manifest of %s (%v)", v.SignedAt(), err)
			}
		})
		if marks, err := trust.LoadMarks(w.path("state/marks.json")); err != nil || !marks.Manifest.SignedAt.Equal(later) {
			t.Errorf("the file of marks says %s (%v)", marks.Manifest.SignedAt, err)
		}
	})
}

func TestABadSystemLeavesByItself(t *testing.T) {
	const back = "DispatchAck ActivationStarted ActivationCompleted ProbeTopologyDeclared "
	for _, test := range []struct {
		name  string
		spoil func(w *world)
		kinds string
		cause lifecycle.Cause
	}{
		{"its switch fails", func(w *world) { w.setProgram(w.v2, exits(2)) },
			"DispatchAck ActivationStarted ActivationFailed RollbackComplete", lifecycle.CauseSwitch},
		{"its switch fails after it went live", func(w *world) {
			w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
				obey(ctx, w, c, action)
				return 2
			})
		}, "DispatchAck ActivationStarted ActivationFailed RollbackComplete", lifecycle.CauseSwitch},
		{"its probe fails", func(w *world) { w.setProbe(1) },
			back + "ProbeFailureFirst Persisted Failed RollbackComplete", lifecycle.CauseProbes},
		{"it has no network", func(w *world) {
			w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
				w.net.cut(true)
				return obey(ctx, w, c, action)
			})
			w.setProgram(w.v1, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
				w.net.cut(false)
				return obey(ctx, w, c, action)
			})
		}, back + "Failed RollbackComplete", lifecycle.CauseConfirm},
		{"it cannot be made the boot default", func(w *world) {
			w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
				if action == "boot" {
					return 1
				}
				return obey(ctx, w, c, action)
			})
		}, "", lifecycle.CausePersist},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(w *world) {
				test.spoil(w)
				r := w.release(w.v2)
				h := w.until(r, lifecycle.Reverted)
				if h.Failure.Cause != test.cause {
					t.Errorf("given up for %s, want %s", h.Failure.Cause, test.cause)
				}
				w.runsAndBoots(w.v1, w.v1)
				if test.kinds != "" {
					w.wantKinds(r, test.kinds)
				}
			})
		})
	}
}

// The network that failed for minutes was the other system's.
func TestAHostThatIsBackTellsItAtOnce(t *testing.T) {
	story(t, func(w *world) {
		for closure, down := range map[fleet.Closure]bool{w.v2: true, w.v1: false} {
			w.setProgram(closure, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
				w.net.cut(down)
				return obey(ctx, w, c, action)
			})
		}
		r := w.release(w.v2)
		w.until(r, lifecycle.Reverted)
		events := w.cp.decoded(r)
		back := events[len(events)-1]
		if late := time.Since(back.At); back.Body.Kind() != lifecycle.KindRollbackComplete || late > 2*time.Second {
			t.Errorf("%s was told %s later", back.Body.Kind(), late)
		}
	})
}

func TestAFailedClosureIsQuarantined(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v2, exits(2))
		w.until(w.release(w.v2), lifecycle.Reverted)
		w.setProgram(w.v2, obey)

		again := w.release(w.v2)
		w.eventually("it is refused", func() bool { return w.cp.refusals() == 1 })
		if r := w.cp.rejects[0]; r.Reason != wire.RejectQuarantined || r.RolloutID != again {
			t.Errorf("refused as %+v", r)
		}
		w.until(w.release(w.v3), lifecycle.Converged) // another closure is free of it
		w.until(w.release(w.v2, func(m *fleet.Manifest) { m.Attempt = 2 }), lifecycle.Converged)
	})
}

func TestTheQuarantineEndsAndDoubles(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v2, exits(2))
		for _, delay := range []time.Duration{24 * time.Hour, 48 * time.Hour} {
			n := w.cp.refusals()
			w.until(w.release(w.v2), lifecycle.Reverted)
			time.Sleep(delay - time.Hour)
			w.release(w.v2)
			w.eventually("it is refused", func() bool { return w.cp.refusals() == n+1 })
			time.Sleep(time.Hour)
		}
	})
}

func TestASignalIsAnsweredInEveryState(t *testing.T) {
	answerOf := func(w *world, rollout string) lifecycle.RollbackSignal {
		var answer lifecycle.RollbackSignal
		w.eventually("the signal is answered", func() bool {
			for _, e := range w.cp.decoded(rollout) {
				if b, ok := e.Body.(lifecycle.RollbackSignal); ok {
					answer = b
				}
			}
			return answer.OrderID != ""
		})
		return answer
	}
	t.Run("soaking", func(t *testing.T) {
		story(t, func(w *world) {
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			w.signal(r)
			if a := answerOf(w, r); !a.Obeyed {
				t.Errorf("not obeyed: %s", a.Why)
			}
			w.until(r, lifecycle.Reverted)
			w.runsAndBoots(w.v1, w.v1)
		})
	})
	t.Run("switching", func(t *testing.T) {
		story(t, func(w *world) {
			w.setProgram(w.v2, takes(time.Minute, obey))
			r := w.release(w.v2)
			w.eventually("the switch runs", func() bool { return strings.Contains(w.cp.kinds(r), "ActivationStarted") })
			w.signal(r)
			if a := answerOf(w, r); !a.Obeyed {
				t.Errorf("not obeyed: %s", a.Why)
			}
			w.until(r, lifecycle.Reverted)
			w.wantKinds(r, "DispatchAck ActivationStarted RollbackSignal ActivationCompleted RollbackComplete")
		})
	})
	t.Run("converged", func(t *testing.T) {
		story(t, func(w *world) {
			r := w.release(w.v2)
			w.until(r, lifecycle.Converged)
			w.signal(r)
			if a := answerOf(w, r); a.Obeyed || a.Why == "" {
				t.Errorf("%+v", a)
			}
			w.runsAndBoots(w.v2, w.v2)
		})
	})
	t.Run("policy halt", func(t *testing.T) {
		story(t, func(w *world) {
			w.policy.OnHealthFailure = fleet.HealthHalt
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			w.signal(r)
			if a := answerOf(w, r); a.Obeyed {
				t.Error("obeyed against the signed policy")
			}
			w.until(r, lifecycle.Converged)
		})
	})
	t.Run("unknown rollout", func(t *testing.T) {
		story(t, func(w *world) {
			w.signal("stable@00ff")
			w.eventually("it is refused", func() bool { return w.cp.refusals() == 1 })
		})
	})
}

func TestANewerRolloutTakesOverInTheSoak(t *testing.T) {
	story(t, func(w *world) {
		w.policy.SoakSecsByWave = []int{3600}
		old := w.release(w.v2)
		w.until(old, lifecycle.Soaking)
		time.Sleep(5 * time.Minute)
		w.policy.SoakSecsByWave = []int{60}
		newer := w.release(w.v3)
		h := w.until(newer, lifecycle.Converged)
		if h.Prior != w.v1 {
			t.Errorf("prior is %s: the superseded target was never proven", h.Prior)
		}
		if o := w.mirror(old); o.State != lifecycle.Superseded || o.SupersededBy != newer {
			t.Errorf("the older is %s by %s", o.State, o.SupersededBy)
		}
		w.runsAndBoots(w.v3, w.v3)
	})
}

func TestANewerRolloutWaitsForTheSwitch(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v2, takes(10*time.Minute, obey))
		old := w.release(w.v2)
		w.eventually("the switch runs", func() bool { return w.mirror(old).Mutated })
		newer := w.release(w.v3)
		time.Sleep(5 * time.Minute)
		if h := w.mirror(newer); h.State != lifecycle.Activating || h.Mutated {
			t.Errorf("the newer is %s, mutated %t, while the older switches", h.State, h.Mutated)
		}
		if h := w.until(newer, lifecycle.Converged); h.Prior != w.v1 {
			t.Errorf("prior is %s", h.Prior)
		}
	})
}

func TestOneThatWasNotBegunIsOvertakenAtOnce(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v2, takes(10*time.Minute, obey))
		live := w.release(w.v2)
		w.eventually("the switch runs", func() bool { return w.mirror(live).Mutated })
		second := w.release(w.v1)
		w.until(second, lifecycle.Activating)
		third := w.release(w.v3)
		w.until(second, lifecycle.Superseded)
		w.until(third, lifecycle.Converged)
	})
}

func TestAHostInABudgetWaitsForItsSlot(t *testing.T) {
	story(t, func(w *world) {
		w.budget = true
		w.cp.verdict = func(_ wire.Envelope, e lifecycle.Event) *wire.BatchResult {
			if e.Body.Kind() == lifecycle.KindDispatchAck {
				return &wire.BatchResult{Status: wire.StatusRetry, Error: wire.Errorf(wire.SlugNoSlot, "no slot")}
			}
			return nil
		}
		r := w.release(w.v2)
		time.Sleep(30 * time.Minute)
		w.runsAndBoots(w.v1, w.v1)
		w.cp.locked(func() { w.cp.verdict = nil })
		w.until(r, lifecycle.Converged)
		w.wantKinds(r, happy)
	})
}

func TestHealthIsReportedAfterConvergence(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		w.setProbe(1)
		time.Sleep(2 * time.Hour)
		w.setProbe(0)
		time.Sleep(2 * time.Hour)
		w.runsAndBoots(w.v2, w.v2)
		w.wantKinds(r, happy+" ProbeFailureFirst HealthChanged HealthChanged")
	})
}

func TestAFlappingProbeDoesNotFillTheJournal(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		before := len(w.cp.decoded(r))
		for i := range 720 { // a day
			w.setProbe(i % 2)
			time.Sleep(2 * time.Minute)
		}
		// One change in 10 minutes: its result, its first failure and HealthChanged.
		if n := len(w.cp.decoded(r)) - before; n > 24*6*3 {
			t.Errorf("%d events in a day", n)
		}
	})
}
