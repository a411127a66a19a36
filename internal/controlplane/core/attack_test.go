package core_test

import (
	"encoding/json"
	"strings"
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// An event that a host did sign comes as something else than what it was signed
// as. Nothing of it is believed, and the operator sees that it came.
func TestAttackSignedEventMoved(t *testing.T) {
	const elsewhere = fleettest.Channel + "@aa"
	for name, move := range map[string]func(e *wire.Envelope){
		"to another rollout":            func(e *wire.Envelope) { e.RolloutID = elsewhere },
		"to another host":               func(e *wire.Envelope) { e.Hostname = "host-2" },
		"to another boot":               func(e *wire.Envelope) { e.BootID = "boot-2" },
		"to another place in the chain": func(e *wire.Envelope) { e.Prev = strings.Repeat("1", 64) },
		"to another time":               func(e *wire.Envelope) { e.RecordedAt = "2020-01-01T00:00:00Z" },
		"to another number": func(e *wire.Envelope) {
			e.Event = json.RawMessage(strings.Replace(string(e.Event), `"seq":2`, `"seq":1`, 1))
		},
		"to another running time": func(e *wire.Envelope) {
			e.Event = json.RawMessage(strings.Replace(string(e.Event), `"active":1`, `"active":100`, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, fleettest.New(t, 2))
			w.publish("aa", newSystem)
			id := w.publish("bb", oldSystem)
			var e wire.Envelope
			seq := int64(1)
			if name == "to another number" {
				seq = 2
			}
			w.ok(json.Unmarshal(w.fleet.Hosts[0].Numbered(id, seq, ack()), &e))
			before, err := json.Marshal(e)
			w.ok(err)
			move(&e)
			moved, err := json.Marshal(e)
			w.ok(err)
			if string(moved) == string(before) {
				t.Fatal("nothing was changed")
			}

			sender := w.fleet.Hosts[0] // by the certificate of the host that it names
			if e.Hostname != sender.Name {
				sender = w.fleet.Hosts[1]
			}
			r := w.send(sender, []json.RawMessage{moved}, wire.StatusRefused)
			if r[0].Error.Slug != wire.SlugBadSignature {
				t.Errorf("it says %+v", r[0].Error)
			}
			v := w.host(sender.Name)
			if v.State != lifecycle.Pending || strings.Join(v.Conditions, " ") != wire.ConditionDiverged+" "+wire.ConditionUnverified {
				t.Errorf("the host is %+v", v)
			}
			if stored := w.events(sender.Name); len(stored) != 1 || stored[0].Verdict != "refused" || stored[0].Detail == "" {
				t.Errorf("stored is %+v", stored)
			}
		})
	}
}
