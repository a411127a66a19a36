package core

import (
	"encoding/json"
	"errors"
	"fmt"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// event is an event as it was read: at least its number is known.
type event struct {
	lifecycle.Event        // Body is nil for what cannot be stepped
	kind            string // also when it is not known
	malformed       string // why it is none of the events that its kind allows
}

// readEvent reads an event of this or another version. An error means that not
// even the number could be read, so that it cannot be stored.
func readEvent(raw []byte) (event, error) {
	e, err := wire.DecodeEvent(raw)
	if err == nil {
		return event{Event: e, kind: string(e.Body.Kind())}, nil
	}
	var unknown *wire.UnknownKind
	if errors.As(err, &unknown) {
		return event{Event: lifecycle.Event{Seq: unknown.Seq, Active: unknown.Active}, kind: string(unknown.Kind)}, nil
	}
	var head struct {
		Kind string `json:"kind"`
		Seq  int64  `json:"seq"`
	}
	if json.Unmarshal(raw, &head) != nil || head.Seq < 1 {
		return event{}, fmt.Errorf("not an event: %w", err)
	}
	return event{Event: lifecycle.Event{Seq: head.Seq}, kind: head.Kind, malformed: err.Error()}, nil
}
