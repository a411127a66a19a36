package wire

import (
	"encoding/json"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// Page is one page of a list. Next, when it is not empty, is the QueryAfter of
// the page that follows.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// NewPage makes a page whose items are [] and never null.
func NewPage[T any](items []T, next string) Page[T] {
	if items == nil {
		items = []T{}
	}
	return Page[T]{Items: items, Next: next}
}

// Health is the answer of PathHealthz. OK is false, and the status 503, when the
// last plan is older than 60 s.
type Health struct {
	OK         bool      `json:"ok"`
	Version    string    `json:"version"`
	Ready      bool      `json:"ready"`
	LastPlanAt time.Time `json:"lastPlanAt,omitzero"`
}

// Readiness is the answer of PathReadyz.
type Readiness struct {
	Ready    bool     `json:"ready"`
	Awaiting []string `json:"awaiting,omitempty"`
}

// Named conditions of a host, besides its state.
const (
	ConditionDiverged    = "diverged"    // the mirror is not the host's state; see the refused events
	ConditionDrifted     = "drifted"     // somebody else changed the system or the boot default
	ConditionUnhealthy   = "unhealthy"   // an enforce probe fails after convergence
	ConditionLost        = "lost"        // silent in the middle of a change
	ConditionUnseen      = "unseen"      // no heartbeat for three intervals
	ConditionQuarantined = "quarantined" // its target is quarantined
	ConditionSkipped     = "skipped"
	ConditionUndeclared  = "undeclared" // no longer in the newest fleet
	ConditionForgotten   = "forgotten"
	ConditionReboot      = "pending-reboot"
	ConditionClock       = "clock-suspect"
	ConditionSkewed      = "clock-skewed" // its clock and the control plane's are more than a minute apart
	ConditionCertificate = "certificate-expiring"
	ConditionEnrolment   = "enrolment-failed"
	ConditionUnverified  = "unverified" // its key is not declared, so its events are unsigned for us
)

// HostView is one host in its channel's newest rollout, with what it reported.
type HostView struct {
	Hostname string   `json:"hostname"`
	System   string   `json:"system"`
	Channel  string   `json:"channel"`
	Tags     []string `json:"tags,omitempty"`

	RolloutID  string          `json:"rolloutId,omitempty"`
	Wave       int             `json:"wave"`
	State      lifecycle.State `json:"state,omitempty"`
	Since      time.Time       `json:"since,omitzero"`
	Target     fleet.Closure   `json:"target,omitempty"`
	Prior      fleet.Closure   `json:"prior,omitempty"`
	Conditions []string        `json:"conditions,omitempty"`
	Failure    *FailureView    `json:"failure,omitempty"`
	Deferral   *Deferral       `json:"deferral,omitempty"`
	Reject     *RejectView     `json:"reject,omitempty"`

	Current       fleet.Closure               `json:"current,omitempty"`
	Booted        fleet.Closure               `json:"booted,omitempty"`
	BootDefault   fleet.Closure               `json:"bootDefault,omitempty"`
	BootID        string                      `json:"bootId,omitempty"`
	UptimeSecs    int64                       `json:"uptimeSecs,omitempty"`
	LastSeenAt    time.Time                   `json:"lastSeenAt,omitzero"`
	AgentVersion  string                      `json:"agentVersion,omitempty"`
	Phase         string                      `json:"phase,omitempty"`
	WaitingOn     []WaitingOn                 `json:"waitingOn,omitempty"`
	OutboxDepth   int                         `json:"outboxDepth,omitempty"`
	DeadLetters   int                         `json:"deadLetters,omitempty"`
	LastSeq       int64                       `json:"lastSeq,omitempty"` // stored, of RolloutID
	ClockOffsetMs int64                       `json:"clockOffsetMs,omitempty"`
	NixFree       int64                       `json:"nixFree,omitempty"`
	BootFree      int64                       `json:"bootFree,omitempty"`
	Probes        map[string]lifecycle.Status `json:"probes,omitempty"`

	CertificateNotAfter time.Time         `json:"certificateNotAfter,omitzero"`
	Enrolment           *EnrolmentFailure `json:"enrolment,omitempty"`

	// Why is the one sentence that answers "why is it not converged?".
	Why string `json:"why,omitempty"`
}

// EnrolmentFailure is what a host last said about why it gets no certificate.
type EnrolmentFailure struct {
	Kind         BootstrapEventKind `json:"kind"`
	Reason       string             `json:"reason"`
	OccurredAt   time.Time          `json:"occurredAt"` // by the host's clock
	At           time.Time          `json:"at"`         // by the control plane's
	AgentVersion string             `json:"agentVersion,omitempty"`
}

// FailureView is why a host gave up its target.
type FailureView struct {
	Cause        lifecycle.Cause `json:"cause"`
	Phase        lifecycle.Phase `json:"phase,omitempty"`
	ExitCode     int             `json:"exitCode,omitempty"`
	Detail       string          `json:"detail,omitempty"`
	At           time.Time       `json:"at"`
	RollbackOwed bool            `json:"rollbackOwed"`
}

// Deferral is why a host is not dispatched: the first gate that blocks it.
type Deferral struct {
	Hostname  string    `json:"hostname"`
	RolloutID string    `json:"rolloutId"`
	Gate      string    `json:"gate"`
	Reason    string    `json:"reason"`
	Since     time.Time `json:"since"`
}

// RejectView is the latest reject of a host in a rollout.
type RejectView struct {
	Reason  RejectReason `json:"reason"`
	Detail  string       `json:"detail"`
	At      time.Time    `json:"at"`
	RetryAt time.Time    `json:"retryAt"`
}

// EventView is a stored event. Verdict is an EventStatus, or "unverified" for
// one of a host without a declared key.
type EventView struct {
	LogID      int64           `json:"logId"`
	Hostname   string          `json:"hostname"`
	RolloutID  string          `json:"rolloutId"`
	Seq        int64           `json:"seq"`
	Kind       lifecycle.Kind  `json:"kind"`
	Verdict    string          `json:"verdict"`
	Detail     string          `json:"detail,omitempty"`
	ReceivedAt time.Time       `json:"receivedAt"`
	Event      json.RawMessage `json:"event"`
}

// EvidenceItem is a stored record as the host sent it.
type EvidenceItem struct {
	LogID      int64     `json:"logId"`
	ReceivedAt time.Time `json:"receivedAt"`
	Envelope   Envelope  `json:"envelope"`
}

// RolloutView is one rollout.
type RolloutView struct {
	RolloutID         string         `json:"rolloutId"`
	DisplayName       string         `json:"displayName,omitempty"`
	Channel           string         `json:"channel"`
	ChannelRef        string         `json:"channelRef"`
	Attempt           int            `json:"attempt"`
	State             string         `json:"state"`
	Since             time.Time      `json:"since"`
	OpenedAt          time.Time      `json:"openedAt"`
	Newest            bool           `json:"newest"` // of its channel
	Wave              int            `json:"wave"`
	Waves             int            `json:"waves"`
	Hosts             int            `json:"hosts"`
	ByState           map[string]int `json:"byState"`
	Paused            *Flag          `json:"paused,omitempty"`
	Recovered         *Flag          `json:"recovered,omitempty"`
	Why               string         `json:"why,omitempty"` // it is halted or held
	PlanHash          string         `json:"planHash"`
	FleetResolvedHash string         `json:"fleetResolvedHash"`
	SignedAt          time.Time      `json:"signedAt"`
	StaleAt           time.Time      `json:"staleAt,omitzero"`
}

// Flag is something that a person or the control plane set.
type Flag struct {
	Who string    `json:"who"`
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// RolloutLifecycle is a rollout with its waves and its history.
type RolloutLifecycle struct {
	RolloutView
	WaveList    []WaveView    `json:"waveList"`
	Transitions []RolloutStep `json:"transitions"`
}

// WaveView is the progress of one wave.
type WaveView struct {
	Index    int            `json:"index"`
	SoakSecs int            `json:"soakSecs"`
	Hosts    int            `json:"hosts"`
	ByState  map[string]int `json:"byState"`
	Done     bool           `json:"done"`
}

// RolloutStep is a committed decision about a rollout.
type RolloutStep struct {
	At     time.Time `json:"at"`
	Action string    `json:"action"`
	From   string    `json:"from,omitempty"`
	To     string    `json:"to,omitempty"`
	Host   string    `json:"host,omitempty"`
	Who    string    `json:"who,omitempty"`
	Why    string    `json:"why,omitempty"`
}

// RolloutHost is one host of a rollout.
type RolloutHost struct {
	Hostname    string          `json:"hostname"`
	Wave        int             `json:"wave"`
	Target      fleet.Closure   `json:"target"`
	Prior       fleet.Closure   `json:"prior,omitempty"`
	State       lifecycle.State `json:"state"`
	Since       time.Time       `json:"since,omitzero"`
	Conditions  []string        `json:"conditions,omitempty"`
	Failure     *FailureView    `json:"failure,omitempty"`
	Deferral    *Deferral       `json:"deferral,omitempty"`
	Reject      *RejectView     `json:"reject,omitempty"`
	LastSeq     int64           `json:"lastSeq"`
	DeliveredAt time.Time       `json:"deliveredAt,omitzero"`
	SwitchedAt  time.Time       `json:"switchedAt,omitzero"`
	ConfirmedAt time.Time       `json:"confirmedAt,omitzero"`
	EndedAt     time.Time       `json:"endedAt,omitzero"`
	SoakedSecs  int64           `json:"soakedSecs,omitempty"`
}

// ChannelView is one channel.
type ChannelView struct {
	Channel                string    `json:"channel"`
	RolloutID              string    `json:"rolloutId,omitempty"` // the newest
	State                  string    `json:"state,omitempty"`
	Hosts                  int       `json:"hosts"`
	Converged              int       `json:"converged"`
	Paused                 *Flag     `json:"paused,omitempty"`
	FreshnessWindowMinutes int       `json:"freshnessWindowMinutes"`
	SignedAt               time.Time `json:"signedAt,omitzero"`
	StaleAt                time.Time `json:"staleAt,omitzero"`
	Why                    string    `json:"why,omitempty"`
}

// QuarantineView is a closure that a channel does not roll out.
type QuarantineView struct {
	Channel       string          `json:"channel"`
	Closure       fleet.Closure   `json:"closure"`
	RolloutID     string          `json:"rolloutId"`
	Hostname      string          `json:"hostname"`
	Cause         lifecycle.Cause `json:"cause"`
	FirstSignedAt time.Time       `json:"firstSignedAt"`
	At            time.Time       `json:"at"`
}

// AuditView is one action of an operator.
type AuditView struct {
	LogID   int64     `json:"logId"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	Action  string    `json:"action"`
	Subject string    `json:"subject"`
	Why     string    `json:"why"`
}

// CertificateView is one issued certificate.
type CertificateView struct {
	Serial         string    `json:"serial"` // hex
	Role           string    `json:"role"`
	Name           string    `json:"name"`
	KeyFingerprint string    `json:"keyFingerprint"`
	NotBefore      time.Time `json:"notBefore"`
	NotAfter       time.Time `json:"notAfter"`
	Requester      string    `json:"requester"` // token, renewal or an operator's name
	Revoked        bool      `json:"revoked,omitempty"`
}

// RecoveryView tells whether the database is recovering, and who has replayed.
type RecoveryView struct {
	Recovering bool           `json:"recovering"`
	Since      time.Time      `json:"since,omitzero"`
	Why        string         `json:"why,omitempty"`
	Hosts      []RecoveryHost `json:"hosts,omitempty"`
}

// RecoveryHost is one host's replay.
type RecoveryHost struct {
	Hostname  string `json:"hostname"`
	RolloutID string `json:"rolloutId,omitempty"`
	StoredSeq int64  `json:"storedSeq"`
	AckedSeq  int64  `json:"ackedSeq"` // as the host last said
	Replayed  bool   `json:"replayed"`
}

// WatchEvent says that a view changed; the reader fetches it again. It is the
// data of a server-sent event whose id is the log id.
type WatchEvent struct {
	Topic WatchTopic `json:"topic"`
	Name  string     `json:"name,omitempty"` // of the host, rollout or channel
}

// WatchTopic is the kind of view that changed.
type WatchTopic string

// The topics.
const (
	WatchHost     WatchTopic = "host"
	WatchRollout  WatchTopic = "rollout"
	WatchChannel  WatchTopic = "channel"
	WatchRecovery WatchTopic = "recovery"
)
