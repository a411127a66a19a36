package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// bodies is one example of every kind, with every field set.
func bodies() map[lifecycle.Kind]lifecycle.Body {
	all := []lifecycle.Body{
		lifecycle.DispatchAck{CurrentClosureAtDispatch: prior, PriorClosure: prior, TargetClosure: target, PlanHash: hash, Wave: 1, OrderID: "o-1"},
		lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: prior, BootID: bootID, BootDefaultWas: prior},
		lifecycle.ActivationCompleted{ObservedCurrentClosure: target, ExitCode: 4, NewFailedUnits: []string{"web.service"}, BootID: bootID},
		lifecycle.ActivationDeferred{Component: "kernel"},
		lifecycle.ActivationFailed{ExitCode: 2, StderrTail: "a <b> & c", Phase: lifecycle.PhaseSwitch, Mutated: true, BadSignature: true},
		lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{{ProbeName: "web", Kind: "http", Mode: lifecycle.Enforce}}},
		lifecycle.ProbeObservedFirst{ProbeName: "web", Mode: lifecycle.Enforce},
		lifecycle.ProbeFailureFirst{ProbeName: "web", Mode: lifecycle.Observe},
		lifecycle.ProbeResult{ProbeName: "web", Mode: lifecycle.Enforce, Status: lifecycle.Fail, FailureReason: "answered 500", SubResults: []lifecycle.SubResult{{ID: "AC-1", Mode: lifecycle.Enforce, Status: lifecycle.Fail, Reason: "open port"}}},
		lifecycle.GaveUp{SustainedDurationSecs: 61, FailingProbes: []string{"web"}, PolicyApplied: "rollback-and-halt", Cause: lifecycle.CauseProbes},
		lifecycle.RollbackComplete{RevertedToClosure: prior, ExitCode: 4},
		lifecycle.HasConverged{CurrentClosure: target, SoakedSecs: 300},
		lifecycle.Confirmed{Via: "control-plane", BootID: bootID},
		lifecycle.Persisted{Generation: 42, BootDefaultVerified: true},
		lifecycle.PersistFailed{Phase: lifecycle.PhaseBoot, ExitCode: 1, StderrTail: "no space"},
		lifecycle.RollbackFailed{Phase: lifecycle.PhaseProfile, ExitCode: 1, StderrTail: "no space", BootRequired: true},
		lifecycle.RollbackSignal{OrderID: "o-2", Reason: "operator", Obeyed: true, Why: "soaking"},
		lifecycle.RebootStarted{Reason: "deferred"},
		lifecycle.Observed{Current: target, BootDefault: prior, BootID: bootID, Resumed: true},
		lifecycle.HealthChanged{Healthy: false, FailingProbes: []string{"web"}, Drifted: true, Flaps: 3},
		lifecycle.WasSuperseded{By: rollout},
		lifecycle.Notice{Code: lifecycle.NoticeChainReset, Detail: "the journal was lost", PreviousHead: hash},
	}
	byKind := map[lifecycle.Kind]lifecycle.Body{}
	for _, b := range all {
		byKind[b.Kind()] = b
	}
	return byKind
}

// published is the name of each kind's wall time as the protocol publishes it.
var published = map[lifecycle.Kind]string{
	"DispatchAck": "receivedAt", "ActivationStarted": "startedAt", "ActivationCompleted": "completedAt",
	"ActivationDeferred": "deferredAt", "ActivationFailed": "failedAt", "ProbeTopologyDeclared": "declaredAt",
	"ProbeObservedFirst": "observedAt", "ProbeFailureFirst": "firstFailedAt", "ProbeResult": "observedAt",
	"Failed": "failedAt", "RollbackComplete": "completedAt", "Converged": "convergedAt", "Confirmed": "confirmedAt",
	"Persisted": "persistedAt", "PersistFailed": "failedAt", "RollbackFailed": "failedAt", "RollbackSignal": "at",
	"RebootStarted": "at", "Observed": "at", "HealthChanged": "at", "Superseded": "at", "Notice": "at",
}

func TestEventsGolden(t *testing.T) {
	for name, kind := range constants(t, "../lifecycle/event.go", "Kind") {
		if bodies()[lifecycle.Kind(kind)] == nil || published[lifecycle.Kind(kind)] == "" {
			t.Errorf("%s has no example here", name)
		}
	}
	for kind, body := range bodies() {
		t.Run(string(kind), func(t *testing.T) {
			event := lifecycle.Event{Seq: 7, Active: 90, At: noon.Add(123 * time.Millisecond), Body: body}
			raw, err := wire.EncodeEvent(event)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "event-"+string(kind), raw)

			var flat map[string]json.RawMessage
			if err := json.Unmarshal(raw, &flat); err != nil {
				t.Fatal(err)
			}
			if want := `"2026-11-23T12:00:00.123Z"`; string(flat[published[kind]]) != want {
				t.Errorf("%s is %s, want %s", published[kind], flat[published[kind]], want)
			}
			// Kind, time, active and seq beside the body's own fields: none of them
			// shares a name with another.
			if want := reflect.TypeOf(body).NumField() + 4; len(flat) != want {
				t.Errorf("%d fields, want %d: %s", len(flat), want, raw)
			}

			back, err := wire.DecodeEvent(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, event) {
				t.Errorf("decoded\n%#v\nwant\n%#v", back, event)
			}
		})
	}
}

// TestEventListsAreNeverNull: an empty topology is declared as [], which tells
// "there are none" from "they are not known".
func TestEventListsAreNeverNull(t *testing.T) {
	for _, body := range []lifecycle.Body{lifecycle.ProbeTopologyDeclared{}, lifecycle.GaveUp{}, lifecycle.HealthChanged{}} {
		raw, err := wire.EncodeEvent(lifecycle.Event{Seq: 1, At: noon, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(raw, []byte(":[]")) || bytes.Contains(raw, []byte("null")) {
			t.Errorf("%s: %s", body.Kind(), raw)
		}
	}
}

func TestEventTimeIsUTC(t *testing.T) {
	at := noon.In(time.FixedZone("elsewhere", 2*3600))
	raw, err := wire.EncodeEvent(lifecycle.Event{Seq: 1, At: at, Body: lifecycle.WasSuperseded{By: rollout}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte(`"at":"2026-11-23T12:00:00Z"`)) {
		t.Error(string(raw))
	}
}

func TestEventTextIsAlwaysValid(t *testing.T) {
	raw, err := wire.EncodeEvent(lifecycle.Event{Seq: 1, At: noon, Body: lifecycle.ActivationFailed{StderrTail: "cut \xe2\x82 in the middle"}})
	if err != nil {
		t.Fatal(err)
	}
	event, err := wire.DecodeEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := event.Body.(lifecycle.ActivationFailed).StderrTail; got != "cut \ufffd in the middle" && got != "cut \ufffd\ufffd in the middle" {
		t.Errorf("%q", got)
	}
}

func TestDecodeUnknownKind(t *testing.T) {
	_, err := wire.DecodeEvent([]byte(`{"kind":"Teleported","to":"mars","active":5,"seq":3}`))
	unknown, ok := errors.AsType[*wire.UnknownKind](err)
	if !ok || unknown.Kind != "Teleported" || unknown.Seq != 3 || unknown.Active != 5 {
		t.Errorf("got %v", err)
	}
}

func TestDecodeIgnoresUnknownFields(t *testing.T) {
	event, err := wire.DecodeEvent([]byte(`{"kind":"Superseded","by":"b@01","mood":"good","at":"2026-11-23T12:00:00Z","seq":3}`))
	if err != nil || event.Body != (lifecycle.WasSuperseded{By: "b@01"}) {
		t.Errorf("%v, %v", event, err)
	}
}

// TestInvalidEvents: each file of testdata/invalid holds bytes that are no event;
// its .err beside it is in the error.
func TestInvalidEvents(t *testing.T) {
	eachInvalid(t, func(raw []byte) error {
		_, err := wire.DecodeEvent(raw)
		return err
	})
}

func eachInvalid(t *testing.T, parse func([]byte) error) {
	files, err := filepath.Glob("testdata/invalid/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no invalid files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".err")
			if err != nil {
				t.Fatal(err)
			}
			if err := parse(raw); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(string(want))) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, body := range bodies() {
		raw, err := wire.EncodeEvent(lifecycle.Event{Seq: 1, Active: 2, At: noon, Body: body})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		event, err := wire.DecodeEvent(raw)
		if err != nil {
			return
		}
		again, err := wire.EncodeEvent(event)
		if err != nil {
			t.Fatalf("decoded %#v cannot be encoded: %v", event, err)
		}
		back, err := wire.DecodeEvent(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if third, err := wire.EncodeEvent(back); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("unstable: %s then %s (%v)", again, third, err)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	for _, name := range []string{"envelope", "envelope-checkpoint"} {
		raw, err := json.Marshal(messages()[name])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e wire.Envelope
		if json.Unmarshal(raw, &e) != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back wire.Envelope
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatal(err)
		}
		if third, err := json.Marshal(back); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("unstable: %s then %s (%v)", again, third, err)
		}
	})
}
