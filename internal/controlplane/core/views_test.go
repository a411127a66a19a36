package core_test

import (
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/wire"
)

// E13: waves are counted from the manifest, and a host is seen when it was seen.
func TestViewsShowWavesAndWhoWasSeen(t *testing.T) {
	f := fleettest.New(t, 3)
	f.Doc.Waves[fleettest.Channel] = []fleet.Wave{{Hosts: []string{"host-1"}}, {Hosts: []string{"host-2", "host-3"}}}
	w := start(t, f)
	id := w.publish("aa", newSystem)
	_, err := w.Heartbeat(t.Context(), "host-2", wire.HeartbeatRequest{Hostname: "host-2", BootID: "boot-1", CurrentClosure: oldSystem})
	w.ok(err)
	if v := w.rollout(id); v.Waves != 2 || v.Wave != 0 {
		t.Errorf("the rollout is in wave %d of %d", v.Wave, v.Waves)
	}
	for host, wave := range map[string]int{"host-1": 0, "host-2": 1, "host-3": 1} {
		v := w.host(host)
		if v.Wave != wave || v.LastSeenAt.IsZero() == (host == "host-2") {
			t.Errorf("%s is in wave %d and was seen at %s", host, v.Wave, v.LastSeenAt)
		}
	}
	if v := w.host("host-2"); v.Current != oldSystem || v.BootID != "boot-1" {
		t.Errorf("host-2 is %+v", v)
	}
}
