package core_test

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/evidence"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

func ack() lifecycle.Body {
	return lifecycle.DispatchAck{CurrentClosureAtDispatch: oldSystem, PriorClosure: oldSystem, TargetClosure: newSystem}
}

func started() lifecycle.Body {
	return lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: oldSystem, BootID: "boot-1"}
}

func TestRepeatedEventIsStoredOnce(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	w.poll(h.Name)
	event := h.Event(id, ack())
	w.send(h, []json.RawMessage{event, event}, wire.StatusStored, wire.StatusRepeated)
	// The same record in another spacing is the same record.
	var e wire.Envelope
	w.ok(json.Unmarshal(event, &e))
	spaced, err := json.MarshalIndent(e, "", "  ")
	w.ok(err)
	w.send(h, []json.RawMessage{spaced}, wire.StatusRepeated)
	w.reopen()
	w.send(h, []json.RawMessage{event}, wire.StatusRepeated)
	if events := w.events(h.Name); len(events) != 1 {
		t.Errorf("%d events are stored", len(events))
	}
}

func (w *world) events(host string) []wire.EventView {
	w.t.Helper()
	all, err := w.Events(w.t.Context(), store.EventFilter{Hostname: host, Limit: 1000})
	w.ok(err)
	return all
}

func TestGapNamesWhatIsExpected(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	first, second, third := h.Event(id, ack()), h.Event(id, started()), h.Event(id, lifecycle.RollbackComplete{})
	r := w.send(h, []json.RawMessage{first, third, second}, wire.StatusStored, wire.StatusGap, wire.StatusRetry)
	if e := r[1].Error; e.Slug != wire.SlugGap || e.ExpectedSeq != 2 {
		t.Errorf("the gap says %+v", e)
	}
}

// A restored snapshot of a machine numbers other events with numbers that were
// used before.
func TestConflictMarksTheHost(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	w.send(h, []json.RawMessage{h.Event(id, ack()), h.Event(id, started())}, all(wire.StatusStored, 2)...)
	r := w.send(h, []json.RawMessage{h.Numbered(id, 2, lifecycle.WasSuperseded{By: "other"})}, wire.StatusConflict)
	if e := r[0].Error; e.Slug != wire.SlugConflict || e.ExpectedSeq != 3 {
		t.Errorf("the conflict says %+v", e)
	}
	if v := w.host(h.Name); strings.Join(v.Conditions, " ") != wire.ConditionDiverged {
		t.Errorf("conditions: %v", v.Conditions)
	}
	w.send(h, []json.RawMessage{h.Numbered(id, 3, lifecycle.ActivationCompleted{ObservedCurrentClosure: newSystem})}, wire.StatusStored)
}

// B19: a refused event has had its number, so that the next one is no gap.
func TestRefusedConsumesItsNumber(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	r := w.send(h, []json.RawMessage{
		h.Event(id, lifecycle.HasConverged{CurrentClosure: newSystem}),
		h.Event(id, ack()),
	}, wire.StatusRefused, wire.StatusStored)
	if r[0].Error.Slug != wire.SlugRefused {
		t.Errorf("the refusal says %+v", r[0].Error)
	}
	v := w.host(h.Name)
	if v.State != lifecycle.Activating || v.LastSeq != 2 || strings.Join(v.Conditions, " ") != wire.ConditionDiverged {
		t.Errorf("the host is %+v", v)
	}
	if e := w.events(h.Name)[0]; e.Verdict != "refused" || e.Detail == "" {
		t.Errorf("stored is %+v", e)
	}
}

func TestUnknownKindIsStoredAndChangesNothing(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	w.send(h, []json.RawMessage{
		h.Event(id, ack()),
		h.Seal(id, json.RawMessage(`{"kind":"Teleported","seq":2,"active":2,"at":"2026-01-01T00:00:00Z"}`)),
		h.Numbered(id, 3, started()),
	}, wire.StatusStored, wire.StatusUnknown, wire.StatusStored)
	if v := w.host(h.Name); v.State != lifecycle.Activating || len(v.Conditions) != 0 {
		t.Errorf("the host is %+v", v)
	}
}

func TestMalformedEventConsumesItsNumber(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	w.send(h, []json.RawMessage{
		h.Seal(id, json.RawMessage(`{"kind":"DispatchAck","seq":1,"wave":"none"}`)),
		h.Numbered(id, 2, ack()),
	}, wire.StatusRefused, wire.StatusStored)
	r := w.send(h, []json.RawMessage{h.Seal(id, json.RawMessage(`{"kind":"DispatchAck"}`)), json.RawMessage(`[]`)}, wire.StatusRefused, wire.StatusRefused)
	for _, r := range r {
		if r.Error.Slug != wire.SlugMalformedEvent {
			t.Errorf("it says %+v", r.Error)
		}
	}
	if n := len(w.events(h.Name)); n != 2 {
		t.Errorf("%d events are stored", n)
	}
}

func TestWrongSignatureIsKeptAndNotBelieved(t *testing.T) {
	w := start(t, fleettest.New(t, 2))
	id, h, other := w.publish("aa", newSystem), w.fleet.Hosts[0], w.fleet.Hosts[1]
	h.Key, other.Key = other.Key, h.Key
	r := w.send(h, []json.RawMessage{h.Event(id, ack())}, wire.StatusRefused)
	if r[0].Error.Slug != wire.SlugBadSignature {
		t.Errorf("it says %+v", r[0].Error)
	}
	if v := w.host(h.Name); v.State != lifecycle.Pending || v.LastSeq != 1 {
		t.Errorf("the host is %+v", v)
	}
}

// C24: a host's certificate speaks for that host alone.
func TestEventOfAnotherHostIsRefused(t *testing.T) {
	w := start(t, fleettest.New(t, 2))
	id, h, other := w.publish("aa", newSystem), w.fleet.Hosts[0], w.fleet.Hosts[1]
	r := w.send(h, []json.RawMessage{other.Event(id, ack())}, wire.StatusRefused)
	if r[0].Error.Slug != wire.SlugForbidden {
		t.Errorf("it says %+v", r[0].Error)
	}
	if n := len(w.events(h.Name)) + len(w.events(other.Name)); n != 0 {
		t.Errorf("%d events are stored", n)
	}
}

// Storing never depends on knowing the rollout: what came too early is applied
// when the rollout opens.
func TestUnmirroredEventsAreAppliedWhenTheirRolloutOpens(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	h := w.fleet.Hosts[0]
	id := fleettest.Channel + "@aa"
	w.send(h, []json.RawMessage{h.Event(id, ack()), h.Event(id, started())}, all(wire.StatusUnmirrored, 2)...)
	w.send(h, []json.RawMessage{h.Numbered(id, 4, started())}, wire.StatusGap)
	w.reopen()
	w.publish("aa", newSystem)
	w.eventually("the events are applied", func() bool {
		v := w.host(h.Name)
		return v.State == lifecycle.Activating && v.LastSeq == 2 && v.Prior == oldSystem
	})
	w.send(h, []json.RawMessage{h.Event(id, lifecycle.ActivationCompleted{ObservedCurrentClosure: newSystem})}, wire.StatusStored)
	w.rebuilt()
}

// A stop concerns its own rollout alone.
func TestOneRolloutNeverBlocksAnother(t *testing.T) {
	w := start(t, fleettest.New(t, 1))
	id, h := w.publish("aa", newSystem), w.fleet.Hosts[0]
	w.send(h, []json.RawMessage{
		h.Numbered("stable@bb", 3, ack()),
		h.Event(id, ack()),
		h.Numbered("stable@bb", 4, ack()),
		h.Event(id, started()),
	}, wire.StatusGap, wire.StatusStored, wire.StatusRetry, wire.StatusStored)
}

// A host that no key is declared for is heard, and what it says is marked.
func TestUndeclaredKeyIsMarkedUnverified(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	declared := f.Doc.Hosts[h.Name]
	declared.Pubkey = nil
	f.Doc.Hosts[h.Name] = declared
	w := start(t, f)
	id := w.publish("aa", newSystem)
	w.send(h, []json.RawMessage{h.Event(id, ack())}, wire.StatusStored)
	if e := w.events(h.Name)[0]; e.Verdict != "unverified" {
		t.Errorf("stored is %+v", e)
	}
	if v := w.host(h.Name); strings.Join(v.Conditions, " ") != wire.ConditionUnverified {
		t.Errorf("conditions: %v", v.Conditions)
	}
}

// What an auditor gets is what the host signed, SSH signatures included, also out
// of a database that was opened again and of one that was lost and filled by the
// hosts' replays.
func TestEvidenceIsServedAsItWasSigned(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	w := start(t, f)
	id := w.publish("aa", newSystem)
	sent := h.Converge(id, w.poll(h.Name).OrderID, oldSystem, newSystem)
	w.send(h, sent, all(wire.StatusStored, len(sent))...)
	w.proves(h, len(sent))
	w.reopen()
	w.proves(h, len(sent))

	lost := start(t, f)
	lost.publish("aa", newSystem)
	lost.send(h, sent, all(wire.StatusStored, len(sent))...)
	lost.proves(h, len(sent))
}

// proves checks that the stored records of a host are a whole chain, which ends
// with an SSH signature, and can be had in parts.
func (w *world) proves(h *fleettest.Host, records int) {
	w.t.Helper()
	items, err := w.Evidence(w.t.Context(), h.Name, 0, 1000)
	w.ok(err)
	chain := evidence.Chain{Hostname: h.Name, Key: h.Key.Public().(ed25519.PublicKey)}
	for _, item := range items {
		chain.Records = append(chain.Records, item.Envelope)
	}
	proven, err := evidence.VerifyChain(chain)
	w.ok(err)
	if proven.Records != records || proven.Checkpoints != 1 || items[records-1].Envelope.SSHSig == "" {
		w.t.Errorf("proven is %+v of %d records", proven, records)
	}
	rest, err := w.Evidence(w.t.Context(), h.Name, items[1].LogID, 2)
	w.ok(err)
	if len(rest) != 2 || rest[0].LogID != items[2].LogID || rest[0].Envelope.Prev != chain.Records[2].Prev {
		w.t.Errorf("after %d there is %+v", items[1].LogID, rest)
	}
}
