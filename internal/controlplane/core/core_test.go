package core_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/controlplane/source"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	oldSystem = fleettest.Closure("nixos-old")
	newSystem = fleettest.Closure("nixos-new")
)

// world is a core on a database, and a fleet that it serves.
type world struct {
	*core.Core
	t     testing.TB
	fleet *fleettest.Fleet
	file  string
	store store.Store
	stop  func()
}

func start(t testing.TB, f *fleettest.Fleet) *world {
	t.Helper()
	w := &world{t: t, fleet: f, file: filepath.Join(t.TempDir(), "state.db")}
	w.open()
	t.Cleanup(func() { w.stop() })
	return w
}

// open starts a core on the database, as a new process would.
func (w *world) open() {
	w.t.Helper()
	st, err := store.OpenSqlite(w.t.Context(), w.file)
	w.ok(err)
	w.useStore(st)
}

// reopen ends the core and starts another on the same database.
func (w *world) reopen() {
	w.t.Helper()
	w.stop()
	w.open()
}

// publish releases a closure to every host and has the core take it.
func (w *world) publish(ref string, target fleet.Closure) string {
	w.t.Helper()
	id := w.fleet.Publish(ref, target)
	now := time.Now()
	var r source.Snapshot
	r.Fleet = verified(w, "fleet.resolved.json", func(doc, sig []byte) (trust.Verified[fleet.Fleet], error) {
		return trust.Verify[fleet.Fleet](doc, sig, w.fleet.Slot(), now, 0, trust.Mark{})
	})
	r.Manifests = append(r.Manifests, *verified(w, "rollouts/"+id+".json", func(doc, sig []byte) (trust.Verified[fleet.Manifest], error) {
		return trust.VerifyManifest(doc, sig, w.fleet.Slot(), now, 0, trust.Mark{}, trust.Expect{Fleet: r.Fleet})
	}))
	w.ok(w.Publish(w.t.Context(), r))
	w.eventually("rollout "+id+" opens", func() bool {
		_, open, err := w.RolloutLifecycle(w.t.Context(), id)
		w.ok(err)
		return open
	})
	return id
}

func verified[T any](w *world, name string, verify func(doc, sig []byte) (trust.Verified[T], error)) *trust.Verified[T] {
	w.t.Helper()
	v, err := verify(w.fleet.Bytes(name))
	w.ok(err)
	return &v
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// poll waits for an order.
func (w *world) poll(host string) *wire.Order {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	o, err := w.Poll(ctx, host)
	w.ok(err)
	if o == nil {
		w.t.Fatalf("%s got no order", host)
	}
	return o
}

// noOrder makes sure that a poll is not answered.
func (w *world) noOrder(host string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 150*time.Millisecond)
	defer cancel()
	if o, err := w.Poll(ctx, host); o != nil || err != nil {
		w.t.Fatalf("%s got %+v, %v", host, o, err)
	}
}

// send ingests events and compares their statuses.
func (w *world) send(h *fleettest.Host, events []json.RawMessage, want ...wire.EventStatus) []wire.BatchResult {
	w.t.Helper()
	results, err := w.Ingest(w.t.Context(), h.Name, events)
	w.ok(err)
	got := make([]wire.EventStatus, len(results))
	for i, r := range results {
		got[i] = r.Status
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("statuses are %v, want %v (%+v)", got, want, results)
	}
	return results
}

func all(status wire.EventStatus, n int) []wire.EventStatus {
	out := make([]wire.EventStatus, n)
	for i := range out {
		out[i] = status
	}
	return out
}

func (w *world) host(name string) wire.HostView {
	w.t.Helper()
	v, ok, err := w.Host(w.t.Context(), name)
	w.ok(err)
	if !ok {
		w.t.Fatalf("there is no host %s", name)
	}
	return v
}

func (w *world) rollout(id string) wire.RolloutLifecycle {
	w.t.Helper()
	v, ok, err := w.RolloutLifecycle(w.t.Context(), id)
	w.ok(err)
	if !ok {
		w.t.Fatalf("there is no rollout %s", id)
	}
	return v
}

// TestRolloutConverges takes one host from its order to the end of the rollout.
func TestRolloutConverges(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id := w.publish("aa", newSystem)
	h := w.fleet.Hosts[0]
	order := w.poll(h.Name)
	if order.RolloutID != id || order.TargetClosure != newSystem || order.Kind != wire.OrderDispatch {
		t.Fatalf("the order is %+v", order)
	}
	events := h.Converge(id, order.OrderID, oldSystem, newSystem)
	w.send(h, events, all(wire.StatusStored, len(events))...)
	if v := w.host(h.Name); v.State != lifecycle.Converged || v.LastSeq != int64(len(events)) {
		t.Errorf("the host is %+v", v)
	}
	w.eventually("the rollout is Terminal", func() bool { return w.rollout(id).State == "Terminal" })
	w.noOrder(h.Name)
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("it never came true: %s", what)
		}
	}
}
