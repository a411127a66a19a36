package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"nixfleet/internal/lifecycle"
)

// form is how one kind of event looks on the wire.
type form struct {
	at   string // name of the one wall time
	body func(raw []byte) (lifecycle.Body, error)
}

func body[B lifecycle.Body](raw []byte) (lifecycle.Body, error) {
	var b B
	err := json.Unmarshal(raw, &b)
	return b, err
}

// forms has every kind; a test compares it with lifecycle's list.
var forms = map[lifecycle.Kind]form{
	lifecycle.KindDispatchAck:           {"receivedAt", body[lifecycle.DispatchAck]},
	lifecycle.KindActivationStarted:     {"startedAt", body[lifecycle.ActivationStarted]},
	lifecycle.KindActivationCompleted:   {"completedAt", body[lifecycle.ActivationCompleted]},
	lifecycle.KindActivationDeferred:    {"deferredAt", body[lifecycle.ActivationDeferred]},
	lifecycle.KindActivationFailed:      {"failedAt", body[lifecycle.ActivationFailed]},
	lifecycle.KindProbeTopologyDeclared: {"declaredAt", body[lifecycle.ProbeTopologyDeclared]},
	lifecycle.KindProbeObservedFirst:    {"observedAt", body[lifecycle.ProbeObservedFirst]},
	lifecycle.KindProbeFailureFirst:     {"firstFailedAt", body[lifecycle.ProbeFailureFirst]},
	lifecycle.KindProbeResult:           {"observedAt", body[lifecycle.ProbeResult]},
	lifecycle.KindFailed:                {"failedAt", body[lifecycle.GaveUp]},
	lifecycle.KindRollbackComplete:      {"completedAt", body[lifecycle.RollbackComplete]},
	lifecycle.KindConverged:             {"convergedAt", body[lifecycle.HasConverged]},
	lifecycle.KindConfirmed:             {"confirmedAt", body[lifecycle.Confirmed]},
	lifecycle.KindPersisted:             {"persistedAt", body[lifecycle.Persisted]},
	lifecycle.KindPersistFailed:         {"failedAt", body[lifecycle.PersistFailed]},
	lifecycle.KindRollbackFailed:        {"failedAt", body[lifecycle.RollbackFailed]},
	lifecycle.KindRollbackSignal:        {"at", body[lifecycle.RollbackSignal]},
	lifecycle.KindRebootStarted:         {"at", body[lifecycle.RebootStarted]},
	lifecycle.KindObserved:              {"at", body[lifecycle.Observed]},
	lifecycle.KindHealthChanged:         {"at", body[lifecycle.HealthChanged]},
	lifecycle.KindSuperseded:            {"at", body[lifecycle.WasSuperseded]},
	lifecycle.KindNotice:                {"at", body[lifecycle.Notice]},
}

// UnknownKind is a well-formed event of a kind that this program does not know:
// a newer agent's. It has consumed its number.
type UnknownKind struct {
	Kind   lifecycle.Kind
	Seq    int64
	Active int64
}

func (e *UnknownKind) Error() string {
	return fmt.Sprintf("event %d is of unknown kind %q", e.Seq, e.Kind)
}

// EncodeEvent writes an event as one flat object: its kind, the fields of its
// body, its wall time under the name that the kind gives it (RFC 3339, UTC),
// active and seq. Times keep their nanoseconds, so that both sides step the
// same value.
func EncodeEvent(e lifecycle.Event) ([]byte, error) {
	kind := e.Body.Kind()
	f, ok := forms[kind]
	if !ok {
		return nil, fmt.Errorf("encode event %d: unknown kind %q", e.Seq, kind)
	}
	fields, err := json.Marshal(published(e.Body))
	if err != nil {
		return nil, fmt.Errorf("encode event %d: %w", e.Seq, err)
	}
	at, err := e.At.UTC().MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode event %d: %w", e.Seq, err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"kind":%q,`, kind)
	if inner := fields[1 : len(fields)-1]; len(inner) > 0 {
		b.Write(inner)
		b.WriteByte(',')
	}
	fmt.Fprintf(&b, `%q:%s,"active":%d,"seq":%d}`, f.at, at, e.Active, e.Seq)
	return b.Bytes(), nil
}

// published makes the lists that are always there [] instead of null.
func published(b lifecycle.Body) lifecycle.Body {
	switch b := b.(type) {
	case lifecycle.ProbeTopologyDeclared:
		if b.Probes == nil {
			b.Probes = []lifecycle.ProbeDeclared{}
		}
		return b
	case lifecycle.GaveUp:
		if b.FailingProbes == nil {
			b.FailingProbes = []string{}
		}
		return b
	case lifecycle.HealthChanged:
		if b.FailingProbes == nil {
			b.FailingProbes = []string{}
		}
		return b
	}
	return b
}

// DecodeEvent reads what EncodeEvent wrote, by this program or another version.
// Unknown fields are ignored; an unknown kind is *UnknownKind; any other error
// means that the bytes are no event.
func DecodeEvent(raw []byte) (lifecycle.Event, error) {
	var head struct {
		Kind   lifecycle.Kind `json:"kind"`
		Active int64          `json:"active"`
		Seq    int64          `json:"seq"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return lifecycle.Event{}, fmt.Errorf("decode event: %w", err)
	}
	switch {
	case head.Kind == "":
		return lifecycle.Event{}, fmt.Errorf("decode event: no kind")
	case head.Seq < 1:
		return lifecycle.Event{}, fmt.Errorf("decode %s: seq is %d, it must be 1 or more", head.Kind, head.Seq)
	case head.Active < 0:
		return lifecycle.Event{}, fmt.Errorf("decode %s %d: active is %d, it cannot be negative", head.Kind, head.Seq, head.Active)
	}
	f, ok := forms[head.Kind]
	if !ok {
		return lifecycle.Event{}, &UnknownKind{Kind: head.Kind, Seq: head.Seq, Active: head.Active}
	}
	at, err := wallTime(raw, f.at)
	if err != nil {
		return lifecycle.Event{}, fmt.Errorf("decode %s %d: %w", head.Kind, head.Seq, err)
	}
	b, err := f.body(raw)
	if err != nil {
		return lifecycle.Event{}, fmt.Errorf("decode %s %d: %w", head.Kind, head.Seq, err)
	}
	return lifecycle.Event{Seq: head.Seq, Active: head.Active, At: at, Body: b}, nil
}

func wallTime(raw []byte, name string) (time.Time, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return time.Time{}, err
	}
	value, ok := fields[name]
	if !ok {
		return time.Time{}, fmt.Errorf("no %s", name)
	}
	var at *time.Time
	if err := json.Unmarshal(value, &at); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", name, err)
	}
	if at == nil {
		return time.Time{}, fmt.Errorf("%s is null", name)
	}
	utc := at.UTC()
	if utc.Year() < 1 || utc.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s: year %d of UTC cannot be written", name, utc.Year())
	}
	return utc, nil
}
