package core_test

import (
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/wire"
)

// E28, E10: a fleet that has nothing to do says so every minute, and nothing is
// logged of it; neither is it that a host still waits.
func TestIdleHostsLeaveTheLogAlone(t *testing.T) {
	w := start(t, fleettest.New(t, 3))
	w.publish("aa", newSystem)
	beat := func() {
		for _, h := range w.fleet.Hosts {
			_, err := w.Heartbeat(t.Context(), h.Name, wire.HeartbeatRequest{Hostname: h.Name, BootID: "boot-1", CurrentClosure: oldSystem})
			w.ok(err)
		}
	}
	beat()
	w.ok(w.Reject(t.Context(), w.fleet.Hosts[0].Name, wire.Reject{OrderID: w.poll(w.fleet.Hosts[0].Name).OrderID, RolloutID: fleettest.Channel + "@aa", Reason: wire.RejectHeld, Detail: "by root", RetryAfterSecs: 1800}))
	w.eventually("it waits", func() bool { return w.host(w.fleet.Hosts[0].Name).Reject != nil })
	before, err := w.store.Head(t.Context())
	w.ok(err)
	for range 200 {
		beat()
	}
	after, err := w.store.Head(t.Context())
	w.ok(err)
	if before == 0 || after != before {
		t.Errorf("the log went from %d to %d", before, after)
	}
}
