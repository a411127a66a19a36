package core_test

import (
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// A pruned rollout leaves its tombstone and nothing else that is derived.
func TestPrunedRolloutLeavesItsTombstone(t *testing.T) {
	w := start(t, fleettest.New(t, 2))
	first := w.publish("aa", newSystem)
	h := w.fleet.Hosts[0]
	w.poll(h.Name)
	events := h.Converge(first, "", oldSystem, newSystem)
	w.send(h, append(events, h.Event(first, ack())), append(all(wire.StatusStored, len(events)), wire.StatusRefused)...)
	w.publish("bb", fleettest.Closure("nixos-newer"))
	w.ok(w.Operate(t.Context(), "alice", first, "test", rollout.Removed{Rollout: first}))
	if _, ok, err := w.RolloutLifecycle(t.Context(), first); ok || err != nil {
		t.Errorf("it is still there: %v", err)
	}
	for _, r := range w.rows() {
		if r.Key == first {
			t.Errorf("left is %s", show(r))
		}
	}
	if events, err := w.Events(t.Context(), store.EventFilter{Rollout: first, Limit: 10}); err != nil || len(events) == 0 {
		t.Errorf("its events are gone: %v", err)
	}
	w.rebuilt()
	if w.Documents().Plan(first) == "" {
		t.Error("its id was forgotten: it could be opened again")
	}
}
