package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// TestACrashAtEveryStep crashes the agent as soon as the control plane has heard
// of a step, and lets another go on from what was committed.
func TestACrashAtEveryStep(t *testing.T) {
	for _, kind := range strings.Fields("DispatchAck ActivationStarted ActivationCompleted ProbeTopologyDeclared Persisted Converged") {
		t.Run(kind, func(t *testing.T) {
			story(t, func(w *world) {
				w.setProgram(w.v2, takes(20*time.Second, obey))
				r := w.release(w.v2)
				w.eventually("it came to "+kind, func() bool { return strings.Contains(w.cp.kinds(r), kind) })
				w.crash()
				w.start()
				w.until(r, lifecycle.Converged)
				w.wantKinds(r, happy)
				w.delivered(r)
				w.runsAndBoots(w.v2, w.v2)
			})
		})
	}
}

func TestACrashInTheRollback(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v1, takes(20*time.Second, obey))
		w.setProbe(1)
		r := w.release(w.v2)
		w.until(r, lifecycle.Failed)
		w.crash()
		w.start()
		w.until(r, lifecycle.Reverted)
		w.runsAndBoots(w.v1, w.v1)
	})
}

func TestASoakGoesOnOverRestarts(t *testing.T) {
	story(t, func(w *world) {
		w.policy.SoakSecsByWave = []int{3600}
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		for range 4 { // shut down every night
			time.Sleep(20 * time.Minute)
			w.stop()
			time.Sleep(8 * time.Hour)
			w.start()
		}
		h := w.until(r, lifecycle.Converged)
		if soaked := h.Active - h.CompletedActive; soaked < 3600 || soaked > 3700 {
			t.Errorf("soaked for %d s of running time", soaked)
		}
	})
}

func TestALostJournal(t *testing.T) {
	for _, damage := range []struct {
		name string
		do   func(w *world)
	}{
		{"gone", func(w *world) { w.must(os.Remove(w.path("state/journal.db"))) }},
		{"damaged", func(w *world) { w.write("state/journal.db", make([]byte, 100_000)) }},
	} {
		t.Run(damage.name, func(t *testing.T) {
			story(t, func(w *world) {
				first := w.release(w.v2)
				w.until(first, lifecycle.Converged)
				w.stop()
				stored := int64(len(w.cp.events[first]))
				damage.do(w)
				w.cp.locked(func() {
					w.cp.known = []wire.BootstrapRollout{{RolloutID: first, LastEventSeq: stored}, {RolloutID: "stable@0000000000000000000000000000000000000002", LastEventSeq: 0}}
				})
				w.start()
				time.Sleep(time.Minute)

				// What was accepted before the loss is still the oldest that counts.
				old := time.Now().UTC().Add(-23 * time.Hour)
				m := w.manifest(w.v1)
				m.Meta.SignedAt = &old
				w.publish(m, w.ci)
				w.order(m.ID())
				w.eventually("the older one is refused", func() bool { return w.cp.refusals() == 1 })
				if r := w.cp.rejects[0]; r.Reason != wire.RejectReason(trust.ErrOlderThanAccepted) {
					t.Errorf("refused as %s", r.Reason)
				}

				next := w.release(w.v3)
				w.until(next, lifecycle.Converged)
				var codes []string
				for _, e := range w.cp.decoded(next) {
					if n, ok := e.Body.(lifecycle.Notice); ok {
						codes = append(codes, n.Code)
					}
				}
				if got := strings.Join(codes, " "); got != "chain-reset journal-lost" {
					t.Errorf("notices: %s", got)
				}
			})
		})
	}
}

// TestAnAgentThatIsStoppedInItsCheckKeepsItsJournal: a check that was ended says
// nothing about what it looked at.
func TestAnAgentThatIsStoppedInItsCheckKeepsItsJournal(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		w.stop()
		w.config = func(c *agent.Config) {
			c.CheckJournal = func(ctx context.Context, _ string) error {
				<-ctx.Done()
				return errors.New("signal: killed")
			}
		}
		w.start()
		time.Sleep(time.Second)
		w.stop()
		damaged, err := filepath.Glob(w.path("state/journal.db.damaged-*"))
		if err != nil || len(damaged) > 0 || !exists(w.path("state/journal.db")) {
			t.Errorf("the journal was moved aside: %v, %v", damaged, err)
		}
		w.config = nil
		w.start()
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestAKnownRolloutAfterALostJournal: numbers go on above those that the control
// plane has, and nothing else is taken from it.
func TestAKnownRolloutAfterALostJournal(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.stop()
		stored := int64(len(w.cp.events[r]))
		w.must(os.Remove(w.path("state/journal.db")))
		w.cp.locked(func() { w.cp.known = []wire.BootstrapRollout{{RolloutID: r, LastEventSeq: stored}} })
		w.start()
		w.order(r)
		w.eventually("its events go on", func() bool {
			events := w.cp.decoded(r)
			return slices.ContainsFunc(events[min(stored, int64(len(events))):], func(e lifecycle.Event) bool { return e.Body.Kind() == lifecycle.KindDispatchAck })
		})
		w.delivered(r)
	})
}

func TestMarksSurviveTheLossOfTheirFile(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		w.stop()
		w.must(os.Remove(w.path("state/marks.json")))
		w.start()
		old := time.Now().UTC().Add(-time.Hour)
		m := w.manifest(w.v1)
		m.Meta.SignedAt = &old
		w.publish(m, w.ci)
		w.order(m.ID())
		w.eventually("it is refused", func() bool { return w.cp.refusals() == 1 })
	})
}

func TestEnrolment(t *testing.T) {
	enrolling := func(t *testing.T, tell func(w *world)) {
		story(t, func(w *world) {
			w.stop()
			w.must(os.Remove(w.path("state/agent-cert.pem")))
			w.write("token.json", []byte(`{"version":1}`))
			w.config = func(c *agent.Config) { c.BootstrapTokenFile = w.path("token.json") }
			tell(w)
		})
	}
	t.Run("by token", func(t *testing.T) {
		enrolling(t, func(w *world) {
			w.start()
			w.until(w.release(w.v2), lifecycle.Converged)
			info, err := os.Stat(w.path("state/agent-cert.pem"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("certificate: %v, %v", info, err)
			}
		})
	})
	t.Run("an operator has to help", func(t *testing.T) {
		enrolling(t, func(w *world) {
			w.cp.locked(func() { w.cp.enrollErr = wire.Errorf(wire.SlugTokenExpired, "expired") })
			w.start()
			time.Sleep(10 * time.Minute)
			w.cp.mu.Lock()
			tries, reports := len(w.cp.enrolled), len(w.cp.reports)
			w.cp.mu.Unlock()
			if tries < 5 || tries > 12 || reports != tries {
				t.Errorf("%d tries in 10 minutes, %d reports", tries, reports)
			}
			w.cp.locked(func() { w.cp.enrollErr = nil })
			w.until(w.release(w.v2), lifecycle.Converged)
		})
	})
	t.Run("the control plane is away", func(t *testing.T) {
		enrolling(t, func(w *world) {
			w.cp.locked(func() { w.cp.away = true })
			w.start()
			time.Sleep(time.Hour)
			w.cp.locked(func() { w.cp.away = false })
			w.until(w.release(w.v2), lifecycle.Converged)
			if len(w.cp.reports) > 0 {
				t.Error("an unreachable control plane was reported as a failed enrolment")
			}
		})
	})
	t.Run("a certificate that was not asked for", func(t *testing.T) {
		enrolling(t, func(w *world) {
			key, err := identity.NewKey()
			w.must(err)
			w.cp.ca, err = identity.NewCA("stranger", key, time.Now(), 365*24*time.Hour)
			w.must(err)
			w.start()
			time.Sleep(5 * time.Minute)
			if _, err := os.Stat(w.path("state/agent-cert.pem")); err == nil {
				t.Error("it was stored")
			}
		})
	})
}

func TestRenewal(t *testing.T) {
	story(t, func(w *world) {
		short := issueAgent(t, w.cp.ca, w.hostPublic(), 24*time.Hour)
		w.write("state/agent-cert.pem", identity.EncodeCertificate(short))
		time.Sleep(16 * time.Hour)
		w.cp.mu.Lock()
		renewals, last := w.cp.renewals, w.cp.certs[len(w.cp.certs)-1]
		w.cp.mu.Unlock()
		if renewals != 1 {
			t.Errorf("%d renewals", renewals)
		}
		if left := time.Until(last.NotAfter); left < 20*24*time.Hour {
			t.Errorf("the certificate in use is good for %s: not the new one", left)
		}
	})
}

func TestAnExpiredCertificateIsRenewed(t *testing.T) {
	story(t, func(w *world) {
		w.stop()
		time.Sleep(60 * 24 * time.Hour)
		w.start()
		w.until(w.release(w.v2), lifecycle.Converged)
	})
}

func TestAReplacedCertificateIsUsedAtOnce(t *testing.T) {
	story(t, func(w *world) {
		time.Sleep(time.Hour)
		cert := issueAgent(t, w.cp.ca, w.hostPublic(), time.Hour*24*365)
		w.write("state/agent-cert.pem", identity.EncodeCertificate(cert))
		time.Sleep(3 * time.Minute)
		w.cp.mu.Lock()
		last := w.cp.certs[len(w.cp.certs)-1]
		w.cp.mu.Unlock()
		if last.SerialNumber.Cmp(cert.SerialNumber) != 0 {
			t.Error("the old one is still in use")
		}
	})
}

// TestANewJournalNumbersNothingBeforeOneAnswer: its numbers might be used already.
func TestANewJournalNumbersNothingBeforeOneAnswer(t *testing.T) {
	story(t, func(w *world) {
		w.cp.locked(func() { w.cp.loseAfter[wire.PathHeartbeat] = 10 })
		r := w.release(w.v2)
		w.eventually("an answer arrives", func() bool { return w.cp.toLose(wire.PathHeartbeat) == 0 })
		if got := w.cp.kinds(r); got != "" {
			t.Errorf("events before an answer: %s", got)
		}
		w.until(r, lifecycle.Converged)
		w.stop()
		w.journal(func(tx *journal.Tx) {
			if self, err := tx.Self(); err != nil || !self.Numbered {
				t.Errorf("an agent that was answered has not noted it: %+v, %v", self, err)
			}
		})
	})
}
