package agent_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/evidence"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// delivered checks that the control plane has every event of a rollout once, in
// order, without gaps.
func (w *world) delivered(rollout string) {
	w.t.Helper()
	for i, e := range w.cp.decoded(rollout) {
		if e.Seq != int64(i+1) {
			w.t.Errorf("event %d of %s has number %d", i+1, rollout, e.Seq)
		}
	}
}

func TestLostAnswersAreAskedForAgain(t *testing.T) {
	story(t, func(w *world) {
		w.cp.locked(func() {
			for _, path := range []string{wire.PathEventsBatch, wire.PathHeartbeat, wire.PathDispatch} {
				w.cp.loseAfter[path] = 3
			}
		})
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		w.wantKinds(r, happy)
		w.delivered(r)
	})
}

func TestAControlPlaneThatIsAwayDelaysNothing(t *testing.T) {
	story(t, func(w *world) {
		w.config = nil
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.cp.locked(func() { w.cp.away = true })
		time.Sleep(10 * time.Minute)
		w.runsAndBoots(w.v2, w.v2) // confirmed by any answer, persisted, converged
		w.cp.locked(func() { w.cp.away = false })
		w.until(r, lifecycle.Converged)
		w.wantKinds(r, happy)
		w.delivered(r)
		if strings.Contains(w.logText(), `"level":"ERROR"`) || strings.Contains(w.logText(), `"level":"WARN"`) {
			t.Errorf("a control plane that is away is no fault of the host:\n%s", w.logTail())
		}
	})
}

func TestAGapIsFilled(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.cp.locked(func() { // an older backup
			w.cp.events[r] = w.cp.events[r][:1]
			w.cp.chain = w.cp.chain[:1]
		})
		w.until(r, lifecycle.Converged)
		w.delivered(r)
	})
}

func TestReplayIsAnswered(t *testing.T) {
	story(t, func(w *world) {
		first := w.release(w.v2)
		w.until(first, lifecycle.Converged)
		second := w.release(w.v3)
		w.until(second, lifecycle.Converged)
		w.cp.locked(func() { // its database was lost
			w.cp.events = map[string][]wire.Envelope{}
			w.cp.chain = nil
			w.cp.replay = []wire.Replay{{RolloutID: first, FromSeq: 1}, {RolloutID: second, FromSeq: 1}, {RolloutID: "stable@00ff", FromSeq: 1}}
		})
		w.until(first, lifecycle.Converged)
		w.until(second, lifecycle.Converged)
		w.delivered(first)
		w.delivered(second)
	})
}

func TestARefusedEventBlocksNothing(t *testing.T) {
	for _, batches := range []bool{true, false} {
		t.Run(fmt.Sprintf("batches %t", batches), func(t *testing.T) {
			story(t, func(w *world) {
				w.cp.locked(func() {
					w.cp.noBatches = !batches
					w.cp.verdict = func(_ wire.Envelope, e lifecycle.Event) *wire.BatchResult {
						if e.Body.Kind() == lifecycle.KindActivationStarted {
							return &wire.BatchResult{Status: wire.StatusRefused, Error: wire.Errorf(wire.SlugRefused, "not here")}
						}
						return nil
					}
				})
				r := w.release(w.v2)
				w.eventually("it has converged", func() bool { return strings.Contains(w.cp.kinds(r), "Converged") })
				w.delivered(r)
				w.stop()
				w.journal(func(tx *journal.Tx) {
					dead, err := tx.DeadLetters()
					if err != nil || len(dead) != 1 || dead[0].Why != "not here" || !bytes.Contains(dead[0].Envelope, []byte("ActivationStarted")) {
						t.Errorf("dead letters: %+v, %v", dead, err)
					}
				})
				w.cp.chain = nil // the refused record is missing in it
			})
		})
	}
}

func TestAStoppedRolloutStopsNoOther(t *testing.T) {
	story(t, func(w *world) {
		stuck := ""
		w.cp.locked(func() {
			w.cp.verdict = func(envelope wire.Envelope, e lifecycle.Event) *wire.BatchResult {
				if envelope.RolloutID == stuck && e.Body.Kind() != lifecycle.KindDispatchAck {
					return &wire.BatchResult{Status: wire.StatusRetry, Error: wire.Errorf(wire.SlugUnavailable, "not now")}
				}
				return nil
			}
		})
		first := w.manifest(w.v2)
		w.cp.locked(func() { stuck = first.ID() })
		w.publish(first, w.ci)
		w.order(stuck)
		time.Sleep(10 * time.Minute)
		second := w.release(w.v3)
		w.until(second, lifecycle.Converged)
		if h := w.mirror(stuck); h.State != lifecycle.Activating {
			t.Errorf("the stopped one is %s", h.State)
		}
		w.cp.locked(func() { w.cp.verdict = nil })
		w.until(stuck, lifecycle.Converged)
		w.delivered(stuck)
	})
}

func TestAfterAConflictANewChainBegins(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.stop()
		// The machine is restored from an image: the control plane has events that
		// this journal does not know.
		w.cp.locked(func() {
			stored := w.cp.events[r]
			other := stored[len(stored)-1]
			for range 5 {
				seq := len(w.cp.events[r]) + 1
				other.Event = []byte(fmt.Sprintf(`{"kind":"Observed","current":"","bootDefault":"","bootId":"x","at":"2000-01-01T00:00:00Z","active":1,"seq":%d}`, seq))
				w.cp.events[r] = append(w.cp.events[r], other)
			}
		})
		w.start()
		var notice lifecycle.Event
		w.eventually("the host says so", func() bool {
			for _, e := range w.cp.decoded(r) {
				if n, ok := e.Body.(lifecycle.Notice); ok && n.Code == lifecycle.NoticeJournalRegressed {
					notice = e
					return true
				}
			}
			return false
		})
		w.delivered(r)
		if notice.Body.(lifecycle.Notice).PreviousHead == "" {
			t.Error("the new chain does not say what it follows")
		}
		for _, e := range w.cp.events[r] {
			if bytes.Contains(e.Event, []byte(lifecycle.NoticeJournalRegressed)) && e.Prev != evidence.Genesis {
				t.Errorf("the new chain begins after %s", e.Prev)
			}
		}
		w.stop()
		w.journal(func(tx *journal.Tx) {
			if dead, _ := tx.DeadLetters(); len(dead) == 0 {
				t.Error("what was not sent is not among the dead letters")
			}
		})
		w.cp.chain = nil // two chains, and one that is not ours
	})
}

func TestOnlyTheNewestTwoRolloutsKeepTheirEvents(t *testing.T) {
	story(t, func(w *world) {
		a := w.release(w.v2)
		w.until(a, lifecycle.Converged)
		b := w.release(w.v3)
		w.until(b, lifecycle.Converged)
		c := w.release(w.v2)
		w.until(c, lifecycle.Converged)
		w.stop()
		w.journal(func(tx *journal.Tx) {
			for rollout, want := range map[string]bool{a: false, b: true, c: true} {
				if got := tx.Last(rollout) > 0; got != want {
					t.Errorf("events of %s are held: %t, want %t", rollout, got, want)
				}
			}
			if _, ok, _ := tx.Rollout(a); !ok {
				t.Error("the record is gone, and with it the numbers that were used")
			}
		})
	})
}
