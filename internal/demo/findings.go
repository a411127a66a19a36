package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// findings are what can be seen of a rollout afterwards: what the control plane
// answers to an operator, and what the hosts' folders show. An act is judged by
// them alone.
type findings struct {
	hosts []string // in the order of their making; the canary is the first

	manifest     fleet.Manifest
	rollout      wire.RolloutLifecycle
	rows         map[string]wire.RolloutHost
	views        map[string]wire.HostView
	events       []storedEvent // of the rollout, in the order in which they were stored
	evidence     map[string][]wire.Envelope
	certificates []wire.CertificateView
	machines     map[string]machineState
	revivals     []time.Time // of the control plane

	// Of the acts that need more than one rollout tells.
	tampered         string // the rollout whose manifest was changed
	refusals         []refusal
	forged, smuggled *findings
	audit, flipped   audit               // of the exported evidence, and of it with a bit flipped for each host
	audited          map[string][]string // the exported records, as they were signed
}

// What the programs say in their logs.
const (
	agentStarted        = "started"
	controlPlaneStarted = "serving"
	stopped             = "stopped"
	documentRefused     = "not taken; what was taken before stays"
)

// storedEvent is an event as the control plane has it.
type storedEvent struct {
	wire.EventView
	lifecycle.Event
}

// find makes the findings about a rollout.
func (w *world) find(ctx context.Context, id string) (*findings, error) {
	f := &findings{rows: map[string]wire.RolloutHost{}, views: map[string]wire.HostView{}, evidence: map[string][]wire.Envelope{}, machines: map[string]machineState{}}
	doc, err := w.operator.Raw(ctx, wire.Fill(wire.PathManifest, id))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc, &f.manifest); err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", id, err)
	}
	if f.rollout, err = operator.Get[wire.RolloutLifecycle](ctx, w.operator, wire.Fill(wire.PathRolloutLifecycle, id)); err != nil {
		return nil, err
	}
	rows, err := operator.List[wire.RolloutHost](ctx, w.operator, wire.Fill(wire.PathRolloutHosts, id), "")
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		f.rows[row.Hostname] = row
	}
	events, err := operator.List[wire.EventView](ctx, w.operator, wire.Fill(wire.PathRolloutEvents, id), "")
	if err != nil {
		return nil, err
	}
	for _, view := range events {
		event, err := wire.DecodeEvent(view.Event)
		if err != nil {
			return nil, err
		}
		f.events = append(f.events, storedEvent{view, event})
	}
	if f.certificates, err = operator.List[wire.CertificateView](ctx, w.operator, wire.PathCertificates, ""); err != nil {
		return nil, err
	}
	if f.revivals, err = revivals(w.controlPlane.log, controlPlaneStarted); err != nil {
		return nil, err
	}
	for _, m := range w.machines {
		if err := w.findHost(ctx, f, m, id); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return f, nil
}

func (w *world) findHost(ctx context.Context, f *findings, m *machine, id string) (err error) {
	f.hosts = append(f.hosts, m.name)
	if f.views[m.name], err = operator.Get[wire.HostView](ctx, w.operator, wire.Fill(wire.PathHost, m.name)); err != nil {
		return err
	}
	items, err := operator.List[wire.EvidenceItem](ctx, w.operator, wire.Fill(wire.PathHostEvidence, m.name), "")
	if err != nil {
		return err
	}
	for _, item := range items {
		if item.Envelope.RolloutID == id {
			f.evidence[m.name] = append(f.evidence[m.name], item.Envelope)
		}
	}
	state, err := m.look()
	if err != nil {
		return err
	}
	if state.journal, err = m.events(id, w.folder); err != nil {
		return err
	}
	if state.revivals, err = revivals(m.in(agentLog), agentStarted); err != nil {
		return err
	}
	f.machines[m.name] = state
	return nil
}

// of are the events of one host.
func (f *findings) of(host string) []storedEvent {
	var events []storedEvent
	for _, e := range f.events {
		if e.Hostname == host {
			events = append(events, e)
		}
	}
	return events
}

// first is a host's first event of a kind, with that kind's body.
func first[B lifecycle.Body](f *findings, host string) (storedEvent, B, bool) {
	for _, e := range f.of(host) {
		if b, ok := e.Body.(B); ok {
			return e, b, true
		}
	}
	var none B
	return storedEvent{}, none, false
}
