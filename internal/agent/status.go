package agent

import (
	"encoding/json"
	"slices"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/probe"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// lastEvents is how many events a Status tells.
const lastEvents = 10

// Status is the answer to "what are you doing, since when, and what are you
// waiting for?".
type Status struct {
	MachineID    string    `json:"machineId"`
	Version      string    `json:"version"`
	StartedAt    time.Time `json:"startedAt"`
	ControlPlane string    `json:"controlPlane"`

	// The machine, as last observed.
	Current             fleet.Closure `json:"current,omitempty"`
	BootDefault         fleet.Closure `json:"bootDefault,omitempty"`
	BootDefaultVerified bool          `json:"bootDefaultVerified"`
	BootID              string        `json:"bootId,omitempty"`
	ObservedAt          time.Time     `json:"observedAt,omitzero"`

	// The rollout that is live, else comes next, else ended last.
	Rollout string          `json:"rollout,omitempty"`
	State   string          `json:"state"` // "Idle" before the first rollout
	Since   time.Time       `json:"since,omitzero"`
	Phase   lifecycle.Phase `json:"phase,omitempty"` // what it is busy with
	// Deadline is when, if nothing else happens, the state is left.
	Deadline  time.Time          `json:"deadline,omitzero"`
	Target    fleet.Closure      `json:"target,omitempty"`
	Prior     fleet.Closure      `json:"prior,omitempty"`
	Active    int64              `json:"activeSecs,omitempty"`
	Failure   *lifecycle.Failure `json:"failure,omitempty"`
	Next      string             `json:"next,omitempty"` // accepted, and not begun
	Confirmed bool               `json:"confirmed"`
	Persisted bool               `json:"persisted"`
	Drifted   bool               `json:"drifted"` // somebody else changed what runs or boots

	WaitingOn []Waiting           `json:"waitingOn"`
	Probes    []ProbeStatus       `json:"probes"`
	Fetched   *host.FetchProgress `json:"fetched,omitempty"`

	Hold    *journal.Hold `json:"hold,omitempty"`    // while it lasts
	Refused *Refused      `json:"refused,omitempty"` // the last order that was not followed

	CertificateNotAfter time.Time `json:"certificateNotAfter,omitzero"`
	ControlPlaneSeenAt  time.Time `json:"controlPlaneSeenAt,omitzero"`
	ClockSynchronised   bool      `json:"clockSynchronised"`
	ClockOffsetMs       int64     `json:"clockOffsetMs"` // positive: ahead of the control plane's
	ClockSkewed         bool      `json:"clockSkewed"`   // by more than --max-clock-skew
	ClockSuspect        string    `json:"clockSuspect,omitempty"`

	OutboxDepth  int                  `json:"outboxDepth"`
	DeadLetters  []journal.DeadLetter `json:"deadLetters,omitempty"`
	Quarantine   []journal.Quarantine `json:"quarantine,omitempty"` // closures that are not tried here for now
	Events       []json.RawMessage    `json:"events"`               // the last ones of the rollout, oldest first
	WorkerPanics int64                `json:"workerPanics"`
}

// ProbeStatus is a probe with its last result.
type ProbeStatus struct {
	Name   string           `json:"name"`
	Kind   string           `json:"kind"`
	Mode   lifecycle.Mode   `json:"mode"`
	Status lifecycle.Status `json:"status,omitempty"` // as committed
	Last   *probe.Result    `json:"last,omitempty"`   // as seen
}

// Refused is an order that was not followed.
type Refused struct {
	Rollout string            `json:"rollout"`
	Reason  wire.RejectReason `json:"reason"`
	Detail  string            `json:"detail"`
	At      time.Time         `json:"at"`
}

// status is what is known without reading anything.
func (a *Agent) status(s *state) Status {
	now := time.Now()
	clock, suspect := a.checkClock(s.self.Marks)
	offset, skewed := a.skew()
	st := Status{
		MachineID:          a.cfg.MachineID,
		Version:            a.cfg.Version,
		StartedAt:          a.started.UTC().Truncate(time.Second),
		ControlPlane:       a.cfg.ControlPlane.String(),
		State:              "Idle",
		ControlPlaneSeenAt: a.uplink.LastAnswer().UTC(),
		ClockSynchronised:  clock.Synchronised,
		ClockOffsetMs:      offset.Milliseconds(),
		ClockSkewed:        skewed,
		OutboxDepth:        s.outboxDepth(),
		Quarantine:         s.inQuarantine(now),
		WorkerPanics:       a.panics.Load(),
		WaitingOn:          []Waiting{},
		Probes:             []ProbeStatus{},
		Events:             []json.RawMessage{},
	}
	if suspect != nil {
		st.ClockSuspect = suspect.Error()
	}
	if f := s.facts; f != nil {
		st.Current, st.BootDefault, st.BootDefaultVerified, st.BootID = f.Current, f.BootDefault, f.BootDefaultVerified, f.BootID
		st.ObservedAt = s.factsAt.UTC().Truncate(time.Second)
	}
	if next := s.next(); next != nil {
		st.Next = next.Host.Rollout
	}
	if e := s.current(); e != nil {
		h := e.Host
		st.Rollout, st.State, st.Since, st.Target, st.Prior = h.Rollout, string(h.State), h.Since, h.Target, h.Prior
		st.Failure, st.Confirmed, st.Persisted, st.Drifted, st.Active = h.Failure, h.Confirmed, h.Persisted, h.Drifted, e.active(now)
		st.Phase = phaseOf(h)
		st.Deadline = deadlineOf(e, now)
		st.Probes = a.probeStatus(h)
		st.WaitingOn = append(st.WaitingOn, waitsOf(h, st.Active, st.Probes)...)
	}
	st.WaitingOn = append(st.WaitingOn, a.waits.list()...)
	if st.Hold = s.hold(now); st.Hold != nil {
		st.WaitingOn = append(st.WaitingOn, Waiting{On: wire.WaitingOnHold, Why: st.Hold.Reason, Since: st.Hold.Since})
	}
	if r := a.refused.Load(); r != nil {
		st.Refused = &Refused{Rollout: r.rollout, Reason: r.Reason, Detail: r.Detail, At: r.at.UTC().Truncate(time.Second)}
		if r.Reason == wire.RejectQuarantined && len(st.Quarantine) > 0 {
			st.WaitingOn = append(st.WaitingOn, Waiting{On: wire.WaitingOnQuarantine, Why: r.Detail, Since: st.Refused.At})
		}
	}
	if st.Phase == lifecycle.PhaseFetch {
		st.Fetched = a.progress.Load()
	}
	return st
}

// fullStatus adds what has to be read.
func (a *Agent) fullStatus() (Status, error) {
	st := a.status(a.reducer.view())
	if cert, err := a.uplink.Certificate(); err == nil {
		st.CertificateNotAfter = cert.NotAfter
	}
	err := a.journal.View(func(tx *journal.Tx) error {
		for _, raw := range tx.Events(st.Rollout, max(1, tx.Last(st.Rollout)-lastEvents+1)) {
			var envelope wire.Envelope
			if err := json.Unmarshal(raw, &envelope); err != nil {
				return err
			}
			st.Events = append(st.Events, slices.Clone(envelope.Event))
		}
		var err error
		st.DeadLetters, err = tx.DeadLetters()
		return err
	})
	return st, err
}

// phaseOf is what the agent is busy with in a state.
func phaseOf(h lifecycle.Host) lifecycle.Phase {
	w := lifecycle.Want(h)
	switch {
	case w.Fetch != nil:
		return lifecycle.PhaseFetch
	case w.Switch != nil, w.Rollback != nil:
		return lifecycle.PhaseSwitch
	case w.Reboot != nil:
		return lifecycle.PhaseBoot
	case w.Persist != nil:
		return lifecycle.PhaseProfile
	}
	return ""
}

// deadlineOf is when the state is left if all goes on as it does.
func deadlineOf(e *entry, now time.Time) time.Time {
	in := func(active int64) time.Time {
		return now.Add(time.Duration(active-e.active(now)) * time.Second).UTC().Truncate(time.Second)
	}
	switch h := e.Host; {
	case h.State == lifecycle.Activating:
		return in(int64(h.Policy.ActivationDeadlineSecs))
	case h.State == lifecycle.Soaking && !h.Confirmed && h.ConfirmUntil > 0:
		return in(h.ConfirmUntil)
	case h.State == lifecycle.Soaking:
		return in(h.CompletedActive + int64(h.SoakSecs))
	}
	return time.Time{}
}

// waitsOf is what a state itself waits for. Of a soak whose time is over only what
// keeps it from ending is told.
func waitsOf(h lifecycle.Host, active int64, probes []ProbeStatus) []Waiting {
	var all []Waiting
	wait := func(on wire.WaitingOn, why string) { all = append(all, Waiting{On: on, Why: why, Since: h.Since}) }
	switch h.State {
	case lifecycle.Deferred:
		wait(wire.WaitingOnReboot, "")
	case lifecycle.Soaking:
		if active < h.CompletedActive+int64(h.SoakSecs) {
			wait(wire.WaitingOnSoak, "")
		}
		w := lifecycle.Want(h)
		if w.Confirm {
			wait(wire.WaitingOnConfirm, "")
		}
		if w.Persist != nil {
			wait(wire.WaitingOnPersist, "")
		}
		for _, p := range probes {
			if p.Mode == lifecycle.Enforce && p.Status != lifecycle.Pass {
				wait(wire.WaitingOnProbe(p.Name), p.why())
			}
		}
	}
	return all
}

// why is why a probe has not passed, as its last result said.
func (p ProbeStatus) why() string {
	if p.Last == nil {
		return "it has no result yet"
	}
	return p.Last.Reason
}

// waitingOn is the list as it is sent.
func (s Status) waitingOn() []wire.WaitingOn {
	var on []wire.WaitingOn
	for _, w := range s.WaitingOn {
		if w.On != wire.WaitingOnNone && !slices.Contains(on, w.On) {
			on = append(on, w.On)
		}
	}
	if on == nil {
		return []wire.WaitingOn{wire.WaitingOnNone}
	}
	return on
}

func (a *Agent) probeStatus(h lifecycle.Host) []ProbeStatus {
	all := []ProbeStatus{}
	scheduler := a.scheduler.Load()
	for _, p := range h.Probes {
		st := ProbeStatus{Name: p.Name, Kind: p.Kind, Mode: p.Mode, Status: p.Status}
		if scheduler != nil {
			if history := scheduler.History(p.Name); len(history) > 0 {
				st.Last = &history[len(history)-1]
			}
		}
		all = append(all, st)
	}
	return all
}
