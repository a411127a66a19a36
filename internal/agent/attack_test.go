package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// Each test here is a control plane that was broken into. It can delay a host; it
// cannot choose what the host runs, and what it did is over when it is repaired.

// refuses waits for one more order to be refused, and checks what the operator is
// shown.
func (w *world) refuses(before int, rollout string, reason any, detail string) {
	w.t.Helper()
	w.eventually("the order is refused", func() bool { return w.cp.refusals() > before })
	w.cp.mu.Lock()
	got := w.cp.rejects[before]
	w.cp.mu.Unlock()
	if string(got.Reason) != fmt.Sprint(reason) || got.RolloutID != rollout || !strings.Contains(got.Detail, detail) {
		w.t.Errorf("refused as %+v, want %v: %s", got, reason, detail)
	}
}

func (w *world) offer(o wire.Order) { w.cp.locked(func() { w.cp.orders = append(w.cp.orders, o) }) }

// answerTo waits for the host's answer to a rollback signal.
func (w *world) answerTo(rollout, orderID string) (answer lifecycle.RollbackSignal) {
	w.t.Helper()
	w.eventually("the signal is answered", func() bool {
		for _, e := range w.cp.decoded(rollout) {
			if b, ok := e.Body.(lifecycle.RollbackSignal); ok && b.OrderID == orderID {
				answer = b
			}
		}
		return answer.OrderID != ""
	})
	return answer
}

func newSigner(t *testing.T) trust.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := trust.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What an order says beside the rollout's id is read by nobody.
func TestAttackOrderThatLiesAboutItsPlan(t *testing.T) {
	story(t, func(w *world) {
		w.setProgram(w.v3, func(context.Context, *world, fleet.Closure, string) int {
			t.Error("the target of the order was switched to")
			return 0
		})
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		w.offer(wire.Order{
			OrderID: "lie", Kind: wire.OrderDispatch, Hostname: host1, RolloutID: m.ID(),
			TargetClosure: w.v3, Wave: 7, SoakDueAt: time.Now().Add(-time.Hour), EnqueuedAt: time.Now().Add(time.Hour), ManifestHash: strings.Repeat("f", 64),
		})
		h := w.until(m.ID(), lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
		if h.Target != w.v2 || h.Wave != 0 || h.Active-h.CompletedActive < 60 {
			t.Errorf("target %s in wave %d, soaked for %d s", h.Target, h.Wave, h.Active-h.CompletedActive)
		}
	})
}

func TestAttackOrderOfAnotherHost(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		w.offer(wire.Order{OrderID: "theirs", Kind: wire.OrderDispatch, Hostname: "web-02", RolloutID: m.ID()})
		w.refuses(0, m.ID(), trust.ErrMismatch, `the order is for host "web-02"`)
		// With the name changed, it is the manifest that does not have this host.
		m = w.manifest(w.v2, func(m *fleet.Manifest) { m.HostSet[0].Hostname = "web-02" })
		w.publish(m, w.ci)
		w.order(m.ID())
		w.refuses(1, m.ID(), wire.RejectNotInManifest, "web-01")
		w.offer(wire.Order{OrderID: "signal", Kind: wire.OrderRollbackSignal, Hostname: "web-02", RolloutID: m.ID()})
		w.refuses(2, m.ID(), trust.ErrMismatch, `the order is for host "web-02"`)
		w.runsAndBoots(w.v1, w.v1)
	})
}

// What a later control plane may want of a host is not taken for a dispatch.
func TestAttackOrderOfAnUnknownKind(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		w.offer(wire.Order{OrderID: "later", Kind: "Erase", Hostname: host1, RolloutID: m.ID()})
		w.refuses(0, m.ID(), trust.ErrMalformed, `no orders of kind "Erase"`)
		w.runsAndBoots(w.v1, w.v1)
		w.offer(wire.Order{OrderID: "published", Hostname: host1, RolloutID: m.ID()}) // without a kind it is a dispatch
		w.until(m.ID(), lifecycle.Converged)
	})
}

// A rollout's id becomes part of a URL, of a file's name and of a key: only what
// has its form is asked for.
func TestAttackRolloutIDThatIsAPath(t *testing.T) {
	story(t, func(w *world) {
		var asked atomic.Pointer[string]
		w.cp.locked(func() {
			w.cp.lie = func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.Path, "/v1/rollouts/") || strings.Contains(r.RequestURI, "%") {
					asked.Store(&r.RequestURI)
				}
				return false
			}
		})
		for n, id := range []string{
			"..", "../../etc/passwd", "stable@../../x", "stable@00ff/../../agent/dispatch", "stable@00ff?wait=0", "stable@00ff#", "/nix/store/x",
			"stable@00ff\x00", "stable@00ff\n", "STABLE@00ff", "stable@00ff.01", "", "stable", strings.Repeat("a", 200),
		} {
			w.offer(wire.Order{OrderID: fmt.Sprint("path-", n), Kind: wire.OrderDispatch, Hostname: host1, RolloutID: id})
			w.refuses(n, id, trust.ErrMalformed, "is no rollout's id")
		}
		if path := asked.Load(); path != nil {
			t.Errorf("asked for %s", *path)
		}
		// What no answer could carry is not answered, and stops nothing.
		w.offer(wire.Order{OrderID: strings.Repeat("x", 1<<19), Kind: wire.OrderDispatch, Hostname: host1, RolloutID: strings.Repeat("y", 1<<18)})
		time.Sleep(10 * time.Minute)
		w.cp.locked(func() { w.cp.orders = nil })
		w.until(w.release(w.v2), lifecycle.Converged)
	})
}

// A host that has had a newer release is not taken back to an older one, by
// whichever of its two memories is left.
func TestAttackOldManifestAfterALostMemory(t *testing.T) {
	for _, lost := range []struct {
		name  string
		files []string
	}{
		{"a restart", nil},
		{"a lost journal", []string{"state/journal.db"}},
		{"lost marks", []string{"state/marks.json"}},
	} {
		t.Run(lost.name, func(t *testing.T) {
			story(t, func(w *world) {
				neverSeen := w.manifest(w.v1)
				w.publish(neverSeen, w.ci)
				old := w.release(w.v2)
				w.until(old, lifecycle.Converged)
				newer := w.release(w.v3)
				w.until(newer, lifecycle.Converged)
				w.stop()
				for _, file := range lost.files {
					w.must(os.Remove(w.path(file)))
				}
				w.cp.locked(func() {
					w.cp.known = []wire.BootstrapRollout{{RolloutID: old, LastEventSeq: int64(len(w.cp.events[old]))}, {RolloutID: newer, LastEventSeq: int64(len(w.cp.events[newer]))}}
				})
				w.start()

				w.order(neverSeen.ID())
				w.refuses(0, neverSeen.ID(), trust.ErrOlderThanAccepted, "was accepted before")
				before := w.cp.kinds(old)
				w.order(old)
				if slices.Contains(lost.files, "state/journal.db") {
					w.refuses(1, old, trust.ErrOlderThanAccepted, "was accepted before")
				} else {
					time.Sleep(time.Hour) // it is known, and has ended
				}
				w.cp.locked(func() { w.cp.orders = nil })
				if got := w.cp.kinds(old); got != before {
					t.Errorf("the old one went on: %s", got)
				}
				w.runsAndBoots(w.v3, w.v3)
			})
		})
	}
}

// Both memories are gone: what the host has had is known to nobody here, and it
// says so, to whoever knows it.
func TestAHostThatLostItsMemoriesSaysSo(t *testing.T) {
	story(t, func(w *world) {
		first := w.release(w.v2)
		w.until(first, lifecycle.Converged)
		w.stop()
		for _, file := range []string{"state/journal.db", "state/marks.json"} {
			w.must(os.Remove(w.path(file)))
		}
		w.cp.locked(func() {
			w.cp.known = []wire.BootstrapRollout{{RolloutID: first, LastEventSeq: int64(len(w.cp.events[first]))}}
		})
		w.start()
		next := w.release(w.v3)
		w.until(next, lifecycle.Converged)
		if got := w.notices(next); got != "chain-reset journal-lost trust-reset" {
			t.Errorf("notices: %s", got)
		}
	})
}

func (w *world) notices(rollout string) string {
	var codes []string
	for _, e := range w.cp.decoded(rollout) {
		if n, ok := e.Body.(lifecycle.Notice); ok {
			codes = append(codes, n.Code)
		}
	}
	return strings.Join(codes, " ")
}

// The bytes of the live plan come again, signed earlier.
func TestAttackRefreshWithAnOlderDate(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		early := maps.Clone(w.cp.documents)
		at := *m.Meta.SignedAt
		later := at.Add(30 * time.Second)
		time.Sleep(time.Minute)
		m.Meta.SignedAt = &later
		w.publish(m, w.ci)
		w.order(m.ID())
		w.until(m.ID(), lifecycle.Converged)
		w.cp.locked(func() { w.cp.documents = early })
		w.eventually("it was looked at", func() bool { return strings.Contains(w.logText(), string(trust.ErrOlderThanAccepted)) })
		w.stop()
		w.journal(func(tx *journal.Tx) {
			if self, _ := tx.Self(); !self.Marks.Manifest.SignedAt.Equal(later) {
				t.Errorf("the mark is of %s", self.Marks.Manifest.SignedAt)
			}
		})
	})
}

// The host's own window and clock say what is fresh, not what the answers say of
// themselves.
func TestAttackStaleManifestThatIsCalledFresh(t *testing.T) {
	story(t, func(w *world) {
		w.cp.locked(func() {
			w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
				out.Header().Set("Date", time.Now().Add(-25*time.Hour).UTC().Format(http.TimeFormat))
				out.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				return false
			}
		})
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		time.Sleep(24*time.Hour + trust.Skew + time.Second)
		w.offer(wire.Order{OrderID: "fresh", Kind: wire.OrderDispatch, Hostname: host1, RolloutID: m.ID(), EnqueuedAt: time.Now(), IssuedAt: time.Now()})
		w.refuses(0, m.ID(), trust.ErrStale, "it may be 24h0m0s old")
		w.runsAndBoots(w.v1, w.v1)
	})
}

// "Not modified" is an answer about bytes that this host does not have.
func TestAttackManifestThatIsSaidToBeKnown(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		w.cp.locked(func() {
			w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.Path, "/v1/rollouts/") {
					out.WriteHeader(http.StatusNotModified)
					return true
				}
				return false
			}
		})
		w.order(m.ID())
		w.eventually("it was looked at", func() bool { return strings.Contains(w.logText(), "that this host does not have") })
		w.wantKinds(m.ID(), "")
		w.cp.locked(func() { w.cp.lie = nil })
		w.until(m.ID(), lifecycle.Converged)
	})
}

// A host that has lost its journal asks which numbers its events have had. The
// answer says more, and the more is not read.
func TestAttackSnapshotThatChoosesAState(t *testing.T) {
	story(t, func(w *world) {
		first := w.release(w.v2)
		w.until(first, lifecycle.Converged)
		w.stop()
		stored := len(w.cp.events[first])
		w.must(os.Remove(w.path("state/journal.db")))
		w.setProgram(w.v1, func(context.Context, *world, fleet.Closure, string) int {
			t.Error("the host went where the snapshot wanted it")
			return 0
		})
		w.cp.locked(func() {
			w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != wire.PathHeartbeat {
					return false
				}
				answer(out, map[string]any{"received_at": time.Now().UTC(), "bootstrap_rollouts": []map[string]any{{
					"rolloutId": first, "lastEventSeq": stored, "state": "Failed", "rollbackOwed": true, "prior": w.v1, "target": w.v1,
					"targetClosure": w.v1, "priorClosure": w.v1, "planHash": strings.Repeat("0", 64), "mutated": true,
				}}})
				return true
			}
		})
		w.start()
		time.Sleep(time.Hour)
		w.runsAndBoots(w.v2, w.v2)
		next := w.release(w.v3)
		if h := w.until(next, lifecycle.Converged); h.Prior != w.v2 {
			t.Errorf("prior is %s, and %s ran", h.Prior, w.v2)
		}
	})
}

// Numbers near the end of what a document can hold would leave a rollout without
// a number for its way back.
func TestAttackNumbersThatLeaveNoRoom(t *testing.T) {
	t.Run("of a new journal", func(t *testing.T) {
		story(t, func(w *world) {
			w.stop()
			w.must(os.RemoveAll(w.path("state/journal.db")))
			m := w.manifest(w.v2)
			w.cp.locked(func() { w.cp.known = []wire.BootstrapRollout{{RolloutID: m.ID(), LastEventSeq: 1<<53 - 3}} })
			w.start()
			w.publish(m, w.ci)
			w.order(m.ID())
			w.until(m.ID(), lifecycle.Converged)
			w.delivered(m.ID())
		})
	})
	for name, expected := range map[string]int64{"after a conflict": 1<<53 - 2, "that were used": 1} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.setProbe(1)
				var conflicts atomic.Int64
				w.cp.locked(func() {
					w.cp.verdict = func(_ wire.Envelope, e lifecycle.Event) *wire.BatchResult {
						if e.Body.Kind() != lifecycle.KindActivationCompleted {
							return nil
						}
						conflicts.Add(1)
						refusal := wire.Errorf(wire.SlugConflict, "other bytes")
						refusal.ExpectedSeq = expected
						return &wire.BatchResult{Status: wire.StatusConflict, Error: refusal}
					}
				})
				r := w.release(w.v2)
				w.eventually("the host went back", func() bool {
					return conflicts.Load() > 0 && w.seq(r) > 0 && w.current() == w.v1 && w.bootDefault() == w.v1
				})
				w.cp.locked(func() { w.cp.verdict = nil })
				w.until(r, lifecycle.Reverted)
				w.delivered(r)
			})
		})
	}
}

// seq is the number that the host's heartbeats show as its last of a rollout, once
// it has shown one.
func (w *world) seq(rollout string) int64 {
	w.cp.mu.Lock()
	defer w.cp.mu.Unlock()
	for _, b := range slices.Backward(w.cp.beats) {
		if n := b.LastSeqByRollout[rollout]; n > 0 {
			return n
		}
	}
	return 0
}

// Conflict after conflict: each begins a new chain of records, and none may come
// so soon that a disk fills.
func TestAttackConflictWithoutEnd(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		conflicts := 0
		w.cp.locked(func() {
			w.cp.verdict = func(_ wire.Envelope, e lifecycle.Event) *wire.BatchResult {
				if conflicts++; conflicts > 150 {
					return nil // else time would stand still
				}
				if e.Body.Kind() == lifecycle.KindNotice {
					return &wire.BatchResult{Status: wire.StatusStored}
				}
				refusal := wire.Errorf(wire.SlugConflict, "other bytes")
				refusal.ExpectedSeq = e.Seq + 1
				return &wire.BatchResult{Status: wire.StatusConflict, Error: refusal}
			}
		})
		w.signal(r)
		time.Sleep(20 * time.Minute)
		w.cp.mu.Lock()
		got := conflicts
		w.cp.mu.Unlock()
		if got < 2 || got > 100 {
			t.Errorf("%d verdicts were taken in 20 minutes", got)
		}
		w.cp.chain = nil // as many chains
	})
}

// Its verdicts move nothing: they are about other events, or take back what was
// stored. The host does not send the same again and again as fast as it can.
func TestAttackVerdictsThatMoveNothing(t *testing.T) {
	for name, lie := range map[string]func(e lifecycle.Event) *wire.BatchResult{
		"on other events":   func(lifecycle.Event) *wire.BatchResult { return &wire.BatchResult{Status: wire.StatusStored} },
		"on other rollouts": func(lifecycle.Event) *wire.BatchResult { return &wire.BatchResult{Status: wire.StatusRetry} },
		"that take back": func(e lifecycle.Event) *wire.BatchResult {
			if e.Seq == 1 {
				return &wire.BatchResult{Status: wire.StatusStored}
			}
			refusal := wire.Errorf(wire.SlugGap, "missing")
			refusal.ExpectedSeq = 1
			return &wire.BatchResult{Status: wire.StatusGap, Error: refusal}
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				var requests atomic.Int64
				w.cp.locked(func() {
					w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
						if r.URL.Path != wire.PathEventsBatch || requests.Add(1) > 500 { // else time would stand still
							return false
						}
						var response wire.BatchResponse
						for _, envelope := range read[wire.BatchRequest](w.cp, r).Events {
							e, err := wire.DecodeEvent(envelope.Event)
							if err != nil {
								t.Error(err)
							}
							result := lie(e)
							result.RolloutID, result.Seq = envelope.RolloutID, e.Seq
							switch name {
							case "on other events":
								result.Seq += 1000
							case "on other rollouts":
								result.RolloutID = fmt.Sprintf("stable@%x", requests.Load())
							}
							response.Results = append(response.Results, *result)
						}
						answer(out, response)
						return true
					}
				})
				r := w.release(w.v2)
				time.Sleep(20 * time.Minute)
				if n := requests.Load(); n < 5 || n > 250 {
					t.Errorf("events were sent %d times in 20 minutes", n)
				}
				w.runsAndBoots(w.v2, w.v2) // whatever becomes of its reports
				w.cp.locked(func() { w.cp.lie = nil })
				w.until(r, lifecycle.Converged)
				w.delivered(r)
			})
		})
	}
}

// A rollback can be asked for, and what it may do is signed: never of a host that
// has converged, never under the policy halt, never to another system than the
// one that ran before.
func TestAttackRollbackThatTheOwnerDidNotAllow(t *testing.T) {
	t.Run("of a converged host", func(t *testing.T) {
		story(t, func(w *world) {
			r := w.release(w.v2)
			w.until(r, lifecycle.Converged)
			w.signal(r)
			if a := w.answerTo(r, "signal-"+r); a.Obeyed || !strings.Contains(a.Why, "only a newer one moves this host") {
				t.Errorf("%+v", a)
			}
			time.Sleep(time.Hour)
			w.runsAndBoots(w.v2, w.v2)
		})
	})
	t.Run("under the policy halt", func(t *testing.T) {
		story(t, func(w *world) {
			w.policy.OnHealthFailure = fleet.HealthHalt
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			w.signal(r)
			if a := w.answerTo(r, "signal-"+r); a.Obeyed || !strings.Contains(a.Why, "policy") {
				t.Errorf("%+v", a)
			}
			w.until(r, lifecycle.Converged)
			w.runsAndBoots(w.v2, w.v2)
		})
	})
	t.Run("to a system of its choice", func(t *testing.T) {
		story(t, func(w *world) {
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			w.offer(wire.Order{OrderID: "to-v3", Kind: wire.OrderRollbackSignal, Hostname: host1, RolloutID: r, TargetClosure: w.v3, Reason: "bad"})
			if a := w.answerTo(r, "to-v3"); !a.Obeyed {
				t.Errorf("%+v", a)
			}
			w.until(r, lifecycle.Reverted)
			w.runsAndBoots(w.v1, w.v1)
		})
	})
	t.Run("of a rollout that it never had", func(t *testing.T) {
		story(t, func(w *world) {
			w.signal("stable@00ff")
			w.refuses(0, "stable@00ff", wire.RejectNoManifest, "no record of that rollout")
			w.runsAndBoots(w.v1, w.v1)
		})
	})
	t.Run("with a book for a reason", func(t *testing.T) {
		story(t, func(w *world) {
			r := w.release(w.v2)
			w.until(r, lifecycle.Converged)
			w.offer(wire.Order{OrderID: "book", Kind: wire.OrderRollbackSignal, Hostname: host1, RolloutID: r, Reason: strings.Repeat("é", 200_000)})
			a := w.answerTo(r, "book")
			if len(a.Reason) > 1024 || !strings.HasPrefix(a.Reason, "éé") || strings.Contains(a.Reason, "�") {
				t.Errorf("%d bytes of it were kept", len(a.Reason))
			}
		})
	})
}

// Orders without end cost a host no more than one a second.
func TestAttackOrdersWithoutEnd(t *testing.T) {
	story(t, func(w *world) {
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		var offered atomic.Int64
		w.cp.locked(func() {
			w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
				n := offered.Load()
				if r.URL.Path != wire.PathDispatch || n >= 2000 { // else time would stand still
					return false
				}
				offered.Add(1)
				order := wire.Order{OrderID: fmt.Sprint("flood-", n), Hostname: host1, Kind: wire.OrderDispatch, RolloutID: fmt.Sprintf("stable@%x", n)}
				if n%2 == 0 {
					order.Kind, order.RolloutID = wire.OrderRollbackSignal, fmt.Sprintf("stable@%040x", 1)
				}
				answer(out, order)
				return true
			}
		})
		time.Sleep(2 * time.Minute)
		if n := offered.Load(); n < 60 || n > 130 {
			t.Errorf("%d orders were taken in 2 minutes", n)
		}
		w.cp.locked(func() { w.cp.lie = nil })
		w.until(w.release(w.v3), lifecycle.Converged)
	})
}

// It asks to be left alone for a hundred years. When it is repaired, the host is
// back within hours.
func TestAttackSilence(t *testing.T) {
	story(t, func(w *world) {
		w.cp.locked(func() {
			w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == wire.PathHeartbeat {
					answer(out, wire.HeartbeatResponse{ReceivedAt: time.Now(), NextHeartbeatSecs: 100 * 365 * 24 * 3600})
					return true
				}
				e := wire.Errorf(wire.SlugUnavailable, "for a hundred years")
				e.RetryAfter = 100 * 365 * 24 * time.Hour
				refuse(out, e)
				return true
			}
		})
		time.Sleep(3 * time.Hour)
		w.cp.locked(func() { w.cp.lie, w.cp.beats = nil, nil })
		time.Sleep(90 * time.Minute)
		w.cp.mu.Lock()
		beats := len(w.cp.beats)
		w.cp.mu.Unlock()
		if beats == 0 {
			t.Error("no heartbeat in 90 minutes")
		}
		w.until(w.release(w.v2), lifecycle.Converged)
	})
}

// A document without end ends where no document is that long.
func TestAttackManifestWithoutEnd(t *testing.T) {
	story(t, func(w *world) {
		var served atomic.Int64
		w.cp.locked(func() {
			w.cp.lie = func(out http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/rollouts/stable@00ff" {
					return false
				}
				served.Store(0)
				spaces := bytes.Repeat([]byte(" "), 1<<20)
				for range 100 {
					n, err := out.Write(spaces)
					if served.Add(int64(n)); err != nil {
						return true
					}
				}
				return true
			}
		})
		w.order("stable@00ff")
		w.refuses(0, "stable@00ff", trust.ErrMalformed, "too large")
		w.stop()
		if n := served.Load(); n > 64<<20 {
			t.Errorf("%d bytes were taken", n)
		}
	})
}

// The new system brings new keys, and the old one is gone from it: the rollout
// that brought it goes on, over a restart too, and from then on only the new key
// counts.
func TestAKeyIsReplacedByTheSwitch(t *testing.T) {
	story(t, func(w *world) {
		next := newSigner(t)
		caPEM := string(identity.EncodeCertificate(w.cp.ca.Cert))
		w.setProgram(w.v2, func(ctx context.Context, w *world, c fleet.Closure, action string) int {
			w.writeRoots(next.Public(), caPEM)
			return obey(ctx, w, c, action)
		})
		w.policy.SoakSecsByWave = []int{600}
		r := w.release(w.v2)
		w.until(r, lifecycle.Soaking)
		w.crash()
		w.start()
		w.until(r, lifecycle.Converged)
		w.runsAndBoots(w.v2, w.v2)
		w.wantKinds(r, happy)

		old := w.release(w.v3) // signed by the key that was retired
		w.refuses(0, old, trust.ErrBadSignature, "none of the 1 keys")
		m := w.manifest(w.v3)
		w.publish(m, next)
		w.order(m.ID())
		w.until(m.ID(), lifecycle.Converged)
		w.runsAndBoots(w.v3, w.v3)
	})
}

// A manifest is altered on its way, in each of the ways in which it could name
// another system.
func TestAttackManifestThatWasAltered(t *testing.T) {
	story(t, func(w *world) {
		m := w.manifest(w.v2)
		w.publish(m, w.ci)
		path := wire.Fill(wire.PathManifest, m.ID())
		good := w.cp.documents[path]
		other := w.manifest(w.v3)
		w.publish(other, w.ci)
		otherPair := w.cp.documents[wire.Fill(wire.PathManifest, other.ID())]
		for n, c := range []struct {
			served signed
			reason trust.Refusal
		}{
			{signed{bytes.ReplaceAll(good.doc, []byte(w.v2), []byte(w.v3)), good.sig}, trust.ErrBadSignature},
			{signed{good.doc, otherPair.sig}, trust.ErrBadSignature},
			{signed{otherPair.doc, good.sig}, trust.ErrBadSignature},
			{otherPair, trust.ErrMismatch},
			{signed{good.doc, nil}, trust.ErrBadSignature},
			{signed{good.doc[:len(good.doc)-1], good.sig}, trust.ErrMalformed},
			{signed{append([]byte(`{"hostSet":[],`), good.doc[1:]...), good.sig}, trust.ErrMalformed},
		} {
			w.cp.locked(func() { w.cp.documents[path] = c.served })
			w.order(m.ID())
			w.refuses(n, m.ID(), c.reason, ": ")
		}
		w.runsAndBoots(w.v1, w.v1)
		w.cp.locked(func() { w.cp.documents[path] = good })
		w.order(m.ID())
		w.until(m.ID(), lifecycle.Converged)
	})
}

// What is stale stops what is new, and nothing else: not the start of an agent,
// not the rollout that it follows, not the way back.
func TestStaleDocumentsStopNothingThatRuns(t *testing.T) {
	t.Run("the soak", func(t *testing.T) {
		story(t, func(w *world) {
			w.policy.SoakSecsByWave = []int{3600}
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			w.stop()
			time.Sleep(60 * 24 * time.Hour)
			w.start()
			w.until(r, lifecycle.Converged)
			w.runsAndBoots(w.v2, w.v2)
		})
	})
	t.Run("the way back", func(t *testing.T) {
		story(t, func(w *world) {
			w.policy.SoakSecsByWave = []int{3600}
			r := w.release(w.v2)
			w.until(r, lifecycle.Soaking)
			w.stop()
			time.Sleep(60 * 24 * time.Hour)
			w.setProbe(1)
			w.start()
			w.until(r, lifecycle.Reverted)
			w.runsAndBoots(w.v1, w.v1)
		})
	})
}

// A control plane that is away for a day meets a probe that flaps. Beyond the
// limit only what decides is kept, and the host says so.
func TestAnOutboxThatIsFullKeepsWhatDecides(t *testing.T) {
	story(t, func(w *world) {
		w.stop()
		w.config = func(c *agent.Config) { c.OutboxMax = 20 << 10 }
		w.start()
		r := w.release(w.v2)
		w.until(r, lifecycle.Converged)
		before := len(w.cp.decoded(r))
		w.cp.locked(func() { w.cp.away = true })
		for i := range 144 {
			w.setProbe(i % 2)
			time.Sleep(10 * time.Minute)
		}
		w.cp.locked(func() { w.cp.away = false })
		time.Sleep(10 * time.Minute)
		if !strings.Contains(w.notices(r), lifecycle.NoticeOutboxFull) {
			t.Error("the host does not say so")
		}
		if n := len(w.cp.decoded(r)) - before; n < 20 || n > 40 {
			t.Errorf("%d events of a day were kept", n)
		}
		w.setProbe(0)
		w.until(w.release(w.v3), lifecycle.Converged)
		w.delivered(r)
	})
}
