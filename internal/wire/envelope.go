package wire

import "encoding/json"

// Envelope is one signed record with its signature beside it. Everything that
// is signed keeps the form in which it was received: Event is raw, RecordedAt
// is text. The signature is over the record's RFC 8785 form, so white space and
// escapes on the way do not matter.
type Envelope struct {
	Hostname     string          `json:"hostname"`
	RolloutID    string          `json:"rolloutId"`
	Event        json.RawMessage `json:"event"` // of EncodeEvent
	Signature    string          `json:"signature"`
	BootID       string          `json:"bootId,omitempty"`
	AgentVersion string          `json:"agentVersion,omitempty"`
	RecordedAt   string          `json:"recordedAt,omitempty"` // RFC 3339 UTC
	Prev         string          `json:"prev,omitempty"`       // hex SHA-256 of the previous record
	// SSHSig, on some records, is an armoured SSH signature over this record's
	// hash, for verification with stock tools. It is not part of the record.
	SSHSig string `json:"sshsig,omitempty"`
}

// BatchRequest carries events in order per rollout.
type BatchRequest struct {
	Events []Envelope `json:"events"`
}

// BatchResponse has one result for each event of the request, in its order.
type BatchResponse struct {
	Results []BatchResult `json:"results"`
}

// BatchResult is the verdict on one event. Error explains every status but
// stored and repeated; its ExpectedSeq is set with gap and conflict.
type BatchResult struct {
	Seq       int64       `json:"seq"`
	RolloutID string      `json:"rolloutId"`
	Status    EventStatus `json:"status"`
	Error     *Error      `json:"error,omitempty"`
}

// EventStatus is what became of an event. A stop (gap, conflict, retry) concerns
// only its own rollout.
type EventStatus string

// The statuses of events.
const (
	StatusStored     EventStatus = "stored"
	StatusRepeated   EventStatus = "repeated"
	StatusRefused    EventStatus = "refused"
	StatusUnknown    EventStatus = "unknown"
	StatusUnmirrored EventStatus = "unmirrored"
	StatusGap        EventStatus = "gap"
	StatusConflict   EventStatus = "conflict"
	StatusRetry      EventStatus = "retry"
)

// Final tells whether the control plane has the event, so that it may leave the
// outbox.
func (s EventStatus) Final() bool {
	switch s {
	case StatusStored, StatusRepeated, StatusRefused, StatusUnknown, StatusUnmirrored:
		return true
	}
	return false
}
