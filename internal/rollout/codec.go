package rollout

import (
	"encoding/json"
	"fmt"
	"time"
)

// logged is the JSON form of an action.
type logged struct {
	Kind  Kind            `json:"kind"`
	At    time.Time       `json:"at"`
	Ready time.Duration   `json:"ready"`
	Body  json.RawMessage `json:"body"`
}

// MarshalJSON gives {"kind", "at", "ready", "body"}.
func (a Action) MarshalJSON() ([]byte, error) {
	body, err := json.Marshal(a.Body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(logged{Kind: a.Body.Kind(), At: a.At, Ready: a.Ready, Body: body})
}

// UnmarshalJSON reads what MarshalJSON wrote. An unknown kind is an error: a log
// that holds one was written by a newer program.
func (a *Action) UnmarshalJSON(b []byte) error {
	var l logged
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	decode, ok := decoders[l.Kind]
	if !ok {
		return fmt.Errorf("action of unknown kind %q", l.Kind)
	}
	body, err := decode(l.Body)
	if err != nil {
		return fmt.Errorf("action %s: %w", l.Kind, err)
	}
	*a = Action{At: l.At, Ready: l.Ready, Body: body}
	return nil
}

var decoders = map[Kind]func([]byte) (Body, error){
	KindOpened:            decode[Opened],
	KindRefreshed:         decode[Refreshed],
	KindDelivered:         decode[Delivered],
	KindReleased:          decode[Released],
	KindSignalled:         decode[Signalled],
	KindAdvanced:          decode[Advanced],
	KindSkipped:           decode[Skipped],
	KindJoined:            decode[Joined],
	KindLost:              decode[Lost],
	KindFound:             decode[Found],
	KindHalted:            decode[Halted],
	KindConverging:        decode[Moved],
	KindFinished:          decode[Moved],
	KindReverted:          decode[Moved],
	KindDeferred:          decode[Deferred],
	KindRejected:          decode[Rejected],
	KindRemoved:           decode[Removed],
	KindRecovering:        decode[Recovering],
	KindRecovered:         decode[Recovered],
	KindPaused:            decode[Paused],
	KindResumed:           decode[Resumed],
	KindAccepted:          decode[Accepted],
	KindForced:            decode[Forced],
	KindRolledBack:        decode[RolledBack],
	KindQuarantineCleared: decode[QuarantineCleared],
	KindForgotten:         decode[Forgotten],
	KindRemembered:        decode[Remembered],
}

func decode[B Body](b []byte) (Body, error) {
	var body B
	err := json.Unmarshal(b, &body)
	return body, err
}
