package lifecycle

import (
	"time"

	"nixfleet/internal/fleet"
)

// Event is one thing that happened to a host in a rollout. The same value is
// stepped on the host, signed, sent, and stepped again at the control plane.
type Event struct {
	Seq    int64     // per host and rollout, from 1, without gaps; given at commit
	Active int64     // whole seconds of running time since the dispatch was accepted
	At     time.Time // the one wall time; for people, never for decisions
	Body   Body
}

// Body is what is particular to one kind of event. Step takes the types of this
// package as values, not as pointers.
type Body interface{ Kind() Kind }

// Kind names an event on the wire.
type Kind string

// The kinds of events.
const (
	KindDispatchAck           Kind = "DispatchAck"
	KindActivationStarted     Kind = "ActivationStarted"
	KindActivationCompleted   Kind = "ActivationCompleted"
	KindActivationDeferred    Kind = "ActivationDeferred"
	KindActivationFailed      Kind = "ActivationFailed"
	KindProbeTopologyDeclared Kind = "ProbeTopologyDeclared"
	KindProbeObservedFirst    Kind = "ProbeObservedFirst"
	KindProbeFailureFirst     Kind = "ProbeFailureFirst"
	KindProbeResult           Kind = "ProbeResult"
	KindFailed                Kind = "Failed"
	KindRollbackComplete      Kind = "RollbackComplete"
	KindConverged             Kind = "Converged"
	KindConfirmed             Kind = "Confirmed"
	KindPersisted             Kind = "Persisted"
	KindPersistFailed         Kind = "PersistFailed"
	KindRollbackFailed        Kind = "RollbackFailed"
	KindRollbackSignal        Kind = "RollbackSignal"
	KindRebootStarted         Kind = "RebootStarted"
	KindObserved              Kind = "Observed"
	KindHealthChanged         Kind = "HealthChanged"
	KindSuperseded            Kind = "Superseded"
	KindNotice                Kind = "Notice"
)

// Reasons of RebootStarted.
const (
	RebootDeferred = "deferred"
	RebootRollback = "rollback"
)

// Status is a probe's verdict.
type Status string

// The verdicts.
const (
	Pass Status = "pass"
	Fail Status = "fail"
)

// Mode is what a probe's verdict counts for.
type Mode string

// The modes. Only enforce ever decides anything.
const (
	Enforce  Mode = "enforce"
	Observe  Mode = "observe"
	Disabled Mode = "disabled"
)

// Phase is the step in which an activation, a persist or a rollback failed.
type Phase string

// The phases.
const (
	PhaseFetch     Phase = "fetch"
	PhasePreflight Phase = "preflight"
	PhaseSwitch    Phase = "switch"
	PhaseObserve   Phase = "observe"
	PhaseBoot      Phase = "boot"
	PhaseProfile   Phase = "profile"
	PhaseReadback  Phase = "readback"
)

// Cause is why a target was given up.
type Cause string

// The causes. CauseSwitch, CauseFetch and CausePreflight are derived from
// ActivationFailed and never stand in a Failed event.
const (
	CauseProbes    Cause = "probes"
	CauseConfirm   Cause = "confirm"
	CausePersist   Cause = "persist"
	CauseSignal    Cause = "signal"
	CauseDrift     Cause = "drift"
	CauseDeadline  Cause = "deadline"
	CauseSwitch    Cause = "switch"
	CauseFetch     Cause = "fetch"
	CausePreflight Cause = "preflight"
)

// Switch methods of ActivationStarted.
const (
	MethodNone           = "none"
	MethodTestThenBoot   = "test-then-boot"
	MethodBoot           = "boot"
	MethodDarwinActivate = "darwin-activate"
)

// DispatchAck: the host took the target. At is receivedAt.
type DispatchAck struct {
	CurrentClosureAtDispatch fleet.Closure `json:"currentClosureAtDispatch"`
	PriorClosure             fleet.Closure `json:"priorClosure,omitempty"`
	TargetClosure            fleet.Closure `json:"targetClosure,omitempty"`
	PlanHash                 string        `json:"planHash,omitempty"`
	Wave                     int           `json:"wave"`
	OrderID                  string        `json:"orderId,omitempty"`
}

// ActivationStarted: the first change to the machine is next. At is startedAt.
type ActivationStarted struct {
	SwitchMethod   string        `json:"switchMethod"`
	PriorClosure   fleet.Closure `json:"priorClosure,omitempty"`
	BootID         string        `json:"bootId,omitempty"`
	BootDefaultWas fleet.Closure `json:"bootDefaultWas,omitempty"`
}

// ActivationCompleted: the target was observed to be live. At is completedAt.
type ActivationCompleted struct {
	ObservedCurrentClosure fleet.Closure `json:"observedCurrentClosure"`
	ExitCode               int           `json:"exitCode"`
	NewFailedUnits         []string      `json:"newFailedUnits,omitempty"`
	BootID                 string        `json:"bootId,omitempty"`
}

// ActivationDeferred: the target is staged for the next boot. At is deferredAt.
type ActivationDeferred struct {
	Component string `json:"component"`
}

// ActivationFailed: the target did not become live. At is failedAt.
type ActivationFailed struct {
	ExitCode   int    `json:"exitCode"`
	StderrTail string `json:"stderrTail"` // at most 4 KiB of valid UTF-8
	Phase      Phase  `json:"phase,omitempty"`
	Mutated    bool   `json:"mutated"`
	// BadSignature marks a fetch that failed for good, because no cache had the
	// closure signed by a pinned key. Such a failure quarantines.
	BadSignature bool `json:"badSignature,omitempty"`
}

// ProbeDeclared is one row of ProbeTopologyDeclared.
type ProbeDeclared struct {
	ProbeName string `json:"probeName"`
	Kind      string `json:"kind"`
	Mode      Mode   `json:"mode"`
}

// ProbeTopologyDeclared: the probes of the live system. At is declaredAt.
type ProbeTopologyDeclared struct {
	Probes []ProbeDeclared `json:"probes"`
}

// ProbeObservedFirst: a probe's first pass since the activation. At is observedAt.
type ProbeObservedFirst struct {
	ProbeName string `json:"probeName"`
	Mode      Mode   `json:"mode"`
}

// ProbeFailureFirst: a probe's first failure since a pass or the activation. At
// is firstFailedAt.
type ProbeFailureFirst struct {
	ProbeName string `json:"probeName"`
	Mode      Mode   `json:"mode"`
}

// SubResult is one control of an evidence probe.
type SubResult struct {
	ID     string `json:"id"`
	Mode   Mode   `json:"mode"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// ProbeResult: a probe's verdict changed. At is observedAt.
type ProbeResult struct {
	ProbeName     string      `json:"probeName"`
	Mode          Mode        `json:"mode"`
	Status        Status      `json:"status"`
	FailureReason string      `json:"failureReason,omitempty"` // at most 512 bytes
	SubResults    []SubResult `json:"subResults,omitempty"`
}

// GaveUp is the event Failed: the target was given up. At is failedAt.
type GaveUp struct {
	SustainedDurationSecs int64    `json:"sustainedDurationSecs"`
	FailingProbes         []string `json:"failingProbes"`
	PolicyApplied         string   `json:"policyApplied"`
	Cause                 Cause    `json:"cause,omitempty"` // absent from an older agent means probes
}

// RollbackComplete: prior is current, and boots. At is completedAt.
type RollbackComplete struct {
	RevertedToClosure fleet.Closure `json:"revertedToClosure"`
	ExitCode          int           `json:"exitCode"`
}

// HasConverged is the event Converged. At is convergedAt.
type HasConverged struct {
	CurrentClosure fleet.Closure `json:"currentClosure"`
	SoakedSecs     int64         `json:"soakedSecs"`
}

// Confirmed: an uplink was reached from the new system. At is confirmedAt.
type Confirmed struct {
	Via    string `json:"via"` // control-plane, cache, url
	BootID string `json:"bootId"`
}

// Persisted: the target is the boot default. At is persistedAt.
type Persisted struct {
	Generation          int  `json:"generation"`
	BootDefaultVerified bool `json:"bootDefaultVerified"`
}

// PersistFailed: the target could not be made the boot default. At is failedAt.
type PersistFailed struct {
	Phase      Phase  `json:"phase"`
	ExitCode   int    `json:"exitCode"`
	StderrTail string `json:"stderrTail"`
}

// RollbackFailed: the way back did not work; it is tried again. At is failedAt.
type RollbackFailed struct {
	Phase      Phase  `json:"phase"`
	ExitCode   int    `json:"exitCode"`
	StderrTail string `json:"stderrTail"`
	// BootRequired: prior is the boot default, but cannot be made live in this
	// boot (an inhibitor, or its switch program refuses).
	BootRequired bool `json:"bootRequired,omitempty"`
}

// RollbackSignal is the host's answer to the control plane's request to leave a
// rollout. At is at.
type RollbackSignal struct {
	OrderID string `json:"orderId"`
	Reason  string `json:"reason"`
	Obeyed  bool   `json:"obeyed"`
	Why     string `json:"why"`
}

// RebootStarted: the agent asked for a reboot. At is at.
type RebootStarted struct {
	Reason string `json:"reason"` // RebootDeferred, RebootRollback
}

// Observed: the current system, the boot default or the boot changed, or the
// machine woke from a suspend. An empty field says nothing. At is at.
type Observed struct {
	Current     fleet.Closure `json:"current"` // the target, when one of its specialisations runs
	BootDefault fleet.Closure `json:"bootDefault"`
	BootID      string        `json:"bootId"`
	// Resumed is worth an event only while a confirmation is wanted, whose window
	// it lengthens.
	Resumed bool `json:"resumed,omitempty"`
}

// HealthChanged: after convergence, health or drift changed. At is at.
type HealthChanged struct {
	Healthy       bool     `json:"healthy"`
	FailingProbes []string `json:"failingProbes"`
	Drifted       bool     `json:"drifted"`
	Flaps         int      `json:"flaps,omitempty"` // changes since the last one that were not reported
}

// WasSuperseded is the event Superseded: a newer rollout took over. At is at.
type WasSuperseded struct {
	By string `json:"by"`
}

// Notice codes.
const (
	NoticeChainReset       = "chain-reset"
	NoticeTrustReset       = "trust-reset"
	NoticeJournalLost      = "journal-lost"
	NoticeJournalRegressed = "journal-regressed"
	NoticeOutboxFull       = "outbox-full"
	NoticeGuardActed       = "guard-acted"
)

// Notice is about the host itself. At is at.
type Notice struct {
	Code         string `json:"code"`
	Detail       string `json:"detail"`
	PreviousHead string `json:"previousHead,omitempty"`
}

// Kind of each body.
func (DispatchAck) Kind() Kind           { return KindDispatchAck }
func (ActivationStarted) Kind() Kind     { return KindActivationStarted }
func (ActivationCompleted) Kind() Kind   { return KindActivationCompleted }
func (ActivationDeferred) Kind() Kind    { return KindActivationDeferred }
func (ActivationFailed) Kind() Kind      { return KindActivationFailed }
func (ProbeTopologyDeclared) Kind() Kind { return KindProbeTopologyDeclared }
func (ProbeObservedFirst) Kind() Kind    { return KindProbeObservedFirst }
func (ProbeFailureFirst) Kind() Kind     { return KindProbeFailureFirst }
func (ProbeResult) Kind() Kind           { return KindProbeResult }
func (GaveUp) Kind() Kind                { return KindFailed }
func (RollbackComplete) Kind() Kind      { return KindRollbackComplete }
func (HasConverged) Kind() Kind          { return KindConverged }
func (Confirmed) Kind() Kind             { return KindConfirmed }
func (Persisted) Kind() Kind             { return KindPersisted }
func (PersistFailed) Kind() Kind         { return KindPersistFailed }
func (RollbackFailed) Kind() Kind        { return KindRollbackFailed }
func (RollbackSignal) Kind() Kind        { return KindRollbackSignal }
func (RebootStarted) Kind() Kind         { return KindRebootStarted }
func (Observed) Kind() Kind              { return KindObserved }
func (HealthChanged) Kind() Kind         { return KindHealthChanged }
func (WasSuperseded) Kind() Kind         { return KindSuperseded }
func (Notice) Kind() Kind                { return KindNotice }
