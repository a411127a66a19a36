package core_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// rows is the checkpoint, in order.
func (w *world) rows() []store.Row {
	w.t.Helper()
	var rows []store.Row
	w.ok(w.store.Rows(context.Background(), func(r store.Row) error {
		rows = append(rows, r)
		return nil
	}))
	slices.SortFunc(rows, func(a, b store.Row) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Sub, b.Sub))
	})
	return rows
}

// rebuilt drops everything that is derived, makes it anew from the log, and
// compares. The world ends with a core on the rebuilt database.
func (w *world) rebuilt() {
	w.t.Helper()
	w.stop()
	st, err := store.OpenSqlite(w.t.Context(), w.file)
	w.ok(err)
	w.store = st
	want := w.rows()
	w.ok(core.Rebuild(w.t.Context(), st))
	got := w.rows()
	w.ok(st.Close())
	if len(want) == 0 {
		w.t.Fatal("nothing was derived")
	}
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			w.t.Errorf("rebuilt has one more: %s", show(got[i]))
		case i >= len(got):
			w.t.Errorf("rebuilt lacks %s", show(want[i]))
		case show(got[i]) != show(want[i]):
			w.t.Errorf("was     %s\nrebuilt %s", show(want[i]), show(got[i]))
		}
	}
	w.open()
}

func show(r store.Row) string { return r.Table + " " + r.Key + " " + r.Sub + " " + string(r.Body) }

// E11: the derived tables are what the log folds to.
func TestRebuildGivesTheSame(t *testing.T) {
	f := fleettest.New(t, 4)
	f.Doc.DisruptionBudgets = []fleet.Budget{{Selector: fleet.Selector{All: true}, MaxInFlight: pointer(2)}}
	w := start(t, f)
	first := w.publish("aa", newSystem)
	for i, h := range f.Hosts {
		switch i {
		case 0: // converges
			events := h.Converge(first, w.poll(h.Name).OrderID, oldSystem, newSystem)
			w.send(h, events, all(wire.StatusStored, len(events))...)
		case 1: // fails
			w.poll(h.Name)
			w.send(h, []json.RawMessage{
				h.Event(first, ack()), h.Event(first, started()),
				h.Event(first, lifecycle.ActivationFailed{Phase: lifecycle.PhaseSwitch, ExitCode: 4, Mutated: true}),
				h.Event(first, lifecycle.RollbackComplete{RevertedToClosure: oldSystem}),
				h.Event(first, lifecycle.HasConverged{}),
			}, wire.StatusStored, wire.StatusStored, wire.StatusStored, wire.StatusStored, wire.StatusRefused)
		case 2: // a snapshot was restored
			w.send(h, []json.RawMessage{h.Event("stable@ff", ack())}, wire.StatusUnmirrored)
			w.send(h, []json.RawMessage{h.Numbered("stable@ff", 1, started())}, wire.StatusConflict)
		}
		_, err := w.Heartbeat(t.Context(), h.Name, wire.HeartbeatRequest{Hostname: h.Name, BootID: "boot-1"})
		w.ok(err)
	}
	w.eventually("the rollout halts", func() bool { return w.rollout(first).State == "Reverted" })
	w.ok(w.Operate(t.Context(), "alice", fleettest.Channel, "because", rollout.Paused{Channel: fleettest.Channel, Who: "alice", Why: "because"}))
	_, err := w.Issue(t.Context(), store.Issuance{Serial: "1", Role: "agent", Name: f.Hosts[0].Name, Nonce: "n", KeyFingerprint: "k", NotAfter: time.Now().Add(time.Hour)})
	w.ok(err)
	second := w.publish("bb", fleettest.Closure("nixos-newer"))
	w.eventually("the second opens", func() bool { return w.host(f.Hosts[0].Name).RolloutID == second })
	w.eventually("pause holds", func() bool { d := w.host(f.Hosts[3].Name).Deferral; return d != nil && d.Gate == "paused" })
	w.rebuilt()
	if v := w.host(f.Hosts[0].Name); v.RolloutID != second {
		t.Errorf("after the rebuild the host is %+v", v)
	}
}

func pointer[T any](v T) *T { return &v }

// B12: an order whose answer was lost, by either side, is offered again.
func TestOrderIsOfferedUntilAnswered(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	w.publish("aa", newSystem)
	h := w.fleet.Hosts[0]
	first := w.poll(h.Name)
	w.reopen()
	again := w.poll(h.Name)
	if again.OrderID != first.OrderID {
		t.Errorf("first %s, then %s", first.OrderID, again.OrderID)
	}
	w.send(h, []json.RawMessage{h.Event(first.RolloutID, ack())}, wire.StatusStored)
	w.reopen()
	w.noOrder(h.Name)
	if v := w.host(h.Name); v.State != lifecycle.Activating {
		t.Errorf("the host is %+v", v)
	}
}

// E9: looking and waiting are one step, and an order wakes its own host alone.
func TestParkedPollsAreWokenOneByOne(t *testing.T) {
	f := fleettest.New(t, 3)
	f.Doc.DisruptionBudgets = []fleet.Budget{{Selector: fleet.Selector{All: true}, MaxInFlight: pointer(1)}}
	w := start(t, f)
	type answer struct {
		host  string
		order *wire.Order
	}
	answers := make(chan answer, len(f.Hosts))
	ctx, cancel := context.WithCancel(t.Context())
	for _, h := range f.Hosts {
		go func() {
			o, _ := w.Poll(ctx, h.Name)
			answers <- answer{h.Name, o}
		}()
	}
	w.publish("aa", newSystem)
	first := <-answers
	if first.order == nil || first.order.Hostname != first.host {
		t.Fatalf("%s got %+v", first.host, first.order)
	}
	w.eventually("the others are held by the budget", func() bool {
		d, err := w.Deferrals(t.Context())
		w.ok(err)
		return len(d) == 2 && d[0].Gate == "budget"
	})
	cancel()
	for range 2 {
		if a := <-answers; a.order != nil {
			t.Errorf("%s got %+v", a.host, a.order)
		}
	}
}

// E4: no order of a superseded rollout is handed out.
func TestSupersededOrdersAreGone(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	w.publish("aa", newSystem)
	newer := w.publish("bb", fleettest.Closure("nixos-newer"))
	if o := w.poll(w.fleet.Hosts[0].Name); o.RolloutID != newer {
		t.Errorf("the order is %+v", o)
	}
	w.rebuilt()
}

// A newer poll of the same host ends the older one.
func TestNewerPollTakesOver(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	h := w.fleet.Hosts[0]
	older := make(chan *wire.Order, 1)
	go func() {
		o, _ := w.Poll(t.Context(), h.Name)
		older <- o
	}()
	w.eventually("it is parked", func() bool { _, ok, _ := w.Host(t.Context(), h.Name); return ok })
	newer := make(chan *wire.Order, 1)
	go func() {
		o, _ := w.Poll(t.Context(), h.Name)
		newer <- o
	}()
	if o := <-older; o != nil {
		t.Errorf("the older got %+v", o)
	}
	w.publish("aa", newSystem)
	if o := <-newer; o == nil {
		t.Error("the newer got none")
	}
}

// B13, E25: a refused order is shown, and not offered again at once.
func TestRejectedOrderWaits(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	o := w.poll(h.Name)
	w.ok(w.Reject(t.Context(), h.Name, wire.Reject{OrderID: o.OrderID, RolloutID: id, Reason: wire.RejectHeld, Detail: "by root", RetryAfterSecs: 60}))
	w.noOrder(h.Name)
	if v := w.host(h.Name); v.Reject == nil || v.Reject.Reason != wire.RejectHeld || v.Reject.Detail != "by root" {
		t.Errorf("the host is %+v", v)
	}
	w.rebuilt()
}

// B9: nothing is answered as stored that is not, and nothing of a failed batch
// is believed.
func TestFailedCommitChangesNothing(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	w.poll(h.Name)
	event := h.Event(id, ack())
	// Another program holds the database for longer than the core waits.
	w.stop()
	broken := &brokenStore{}
	st, err := store.OpenSqlite(t.Context(), w.file)
	w.ok(err)
	broken.Store = st
	w.useStore(broken)
	broken.fail.Store(true)
	if _, err := w.Ingest(t.Context(), h.Name, []json.RawMessage{event}); !errors.Is(err, core.ErrUnavailable) {
		t.Fatalf("it was answered %v", err)
	}
	if v := w.host(h.Name); v.State != lifecycle.Pending {
		t.Errorf("the host is %+v", v)
	}
	broken.fail.Store(false)
	w.send(h, []json.RawMessage{event}, wire.StatusStored)
	w.rebuilt()
}

// C8: a token is burned with the certificate that it gave, and gives it again.
func TestIssueIsIdempotent(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	one := store.Issuance{Serial: "1", Role: "agent", Name: "host-1", Nonce: "n", KeyFingerprint: "k", CertPEM: "first", NotAfter: time.Now().Add(time.Hour)}
	two := one
	two.Serial, two.CertPEM = "2", "second"
	for range 2 {
		for _, i := range []store.Issuance{one, two} {
			got, err := w.Issue(t.Context(), i)
			w.ok(err)
			if got.CertPEM != "first" {
				t.Errorf("it gave %s", got.CertPEM)
			}
		}
		w.reopen()
	}
	two.KeyFingerprint = "another"
	var e *wire.Error
	if _, err := w.Issue(t.Context(), two); !errors.As(err, &e) || e.Slug != wire.SlugNonceUsed {
		t.Errorf("another key was answered %v", err)
	}
	if _, err := w.Burned(t.Context(), "n", "host-1", "another"); !errors.As(err, &e) || e.Slug != wire.SlugNonceUsed {
		t.Errorf("another key was answered %v", err)
	}
}

// C8: a certificate that was not recorded has burned nothing; the next try is the
// first.
func TestAFailedIssueBurnsNothing(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	w.stop()
	st, err := store.OpenSqlite(t.Context(), w.file)
	w.ok(err)
	full := &brokenStore{Store: st}
	w.useStore(full)
	one := store.Issuance{Serial: "1", Role: "agent", Name: "host-1", Nonce: "n", KeyFingerprint: "k", NotAfter: time.Now().Add(time.Hour)}
	full.fail.Store(true)
	if _, err := w.Issue(t.Context(), one); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("a disk that is full: %v", err)
	}
	full.fail.Store(false)
	if burned, err := w.Burned(t.Context(), "n", "host-1", "k"); burned != nil || err != nil {
		t.Errorf("the nonce is burned: %+v, %v", burned, err)
	}
	two := one
	two.Serial, two.KeyFingerprint = "2", "another"
	if got, err := w.Issue(t.Context(), two); err != nil || got.Serial != "2" {
		t.Errorf("the next try: %+v, %v", got, err)
	}
	if views, err := w.Certificates(t.Context()); err != nil || len(views) != 1 || views[0].Serial != "2" {
		t.Errorf("the certificates are %+v, %v", views, err)
	}
}

// E20: a database that was lost dispatches nothing until somebody says so.
func TestLostDatabaseRecovers(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	beat := wire.HeartbeatRequest{Hostname: h.Name, AckedSeqByRollout: map[string]int64{id: 2}}
	answer, err := w.Heartbeat(t.Context(), h.Name, beat)
	w.ok(err)
	if len(answer.Replay) != 1 || answer.Replay[0] != (wire.Replay{RolloutID: id, FromSeq: 1}) {
		t.Fatalf("replay is %+v", answer.Replay)
	}
	w.noOrder(h.Name)
	// The replayed acknowledgement needs no slot.
	w.send(h, []json.RawMessage{h.Event(id, ack()), h.Event(id, started())}, all(wire.StatusStored, 2)...)
	answer, err = w.Heartbeat(t.Context(), h.Name, beat)
	w.ok(err)
	if len(answer.Replay) != 0 {
		t.Errorf("replay is %+v", answer.Replay)
	}
	w.rebuilt()
	v, err := w.Recovery(t.Context())
	w.ok(err)
	if !v.Recovering || len(v.Hosts) != 1 || !v.Hosts[0].Replayed {
		t.Errorf("recovery is %+v", v)
	}
	w.ok(w.Operate(t.Context(), "alice", "recovery", "all are back", rollout.Recovered{Who: "alice", Why: "all are back"}))
	if v, err = w.Recovery(t.Context()); err != nil || v.Recovering {
		t.Errorf("recovery is %+v, %v", v, err)
	}
}

// A certificate that this database did not issue is a sign that it was lost.
func TestUnknownCertificateRecovers(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	w.publish("aa", newSystem)
	_, err := w.Issue(t.Context(), store.Issuance{Serial: "1", Role: "agent", Name: "host-1", Nonce: "n", NotAfter: time.Now().Add(time.Hour)})
	w.ok(err)
	w.ok(w.Presented(t.Context(), "host-1", "1"))
	if v, err := w.Recovery(t.Context()); err != nil || v.Recovering {
		t.Fatalf("recovery is %+v, %v", v, err)
	}
	w.ok(w.Presented(t.Context(), "host-1", "2"))
	if v, err := w.Recovery(t.Context()); err != nil || !v.Recovering {
		t.Errorf("recovery is %+v, %v", v, err)
	}
	w.noOrder("host-1")
}

// An order is refused for want of a slot until there is one.
func TestAcknowledgementNeedsASlot(t *testing.T) {
	f := fleettest.New(t, 2)
	f.Doc.DisruptionBudgets = []fleet.Budget{{Selector: fleet.Selector{All: true}, MaxInFlight: pointer(1)}}
	w := start(t, f)
	id := w.publish("aa", newSystem)
	w.poll(f.Hosts[0].Name)
	unasked := f.Hosts[1].Event(id, ack())
	r := w.send(f.Hosts[1], []json.RawMessage{unasked}, wire.StatusRetry)
	if e := r[0].Error; e.Slug != wire.SlugNoSlot || e.RetryAfter != 30*time.Second {
		t.Errorf("it says %+v", e)
	}
	h := f.Hosts[0]
	events := h.Converge(id, "", oldSystem, newSystem)
	w.send(h, events, all(wire.StatusStored, len(events))...)
	w.send(f.Hosts[1], []json.RawMessage{unasked}, wire.StatusStored)
}
