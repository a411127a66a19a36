package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// apply folds one record into the state. It is the only function that does: live
// for what has just happened, and in a rebuild for the whole log. A record that
// does not fit is an error and changes nothing.
func (s *state) apply(r *store.Record) error {
	switch {
	case r.Event != nil:
		return s.applyStored(r)
	case r.Document != nil:
		return s.applyDocument(r)
	case r.Decision != nil && r.Decision.Kind == kindDiverged:
		return s.applyDiverged(r.Decision.Body)
	case r.Decision != nil:
		return s.applyAction(r.LogID, r.Decision.Body)
	case r.Action != nil:
		if r.Action.Args == nil {
			return nil
		}
		return s.applyAction(r.LogID, r.Action.Args)
	case r.Issuance != nil:
		s.applyIssuance(r.Issuance)
		return nil
	}
	return errors.New("an empty record")
}

// outcome is what an event came to.
type outcome struct {
	verdict store.Verdict
	detail  string
}

// applyStored folds an event out of the log, and sees to it that the fold comes
// to the verdict that was given when the event was received.
func (s *state) applyStored(r *store.Record) error {
	e, err := readStored(*r.Event)
	if err != nil {
		return err
	}
	got := s.applyEvent(track{r.Event.Rollout, r.Event.Hostname}, e, r.Event.Signing)
	if got.verdict != r.Event.Verdict {
		return fmt.Errorf("event %s %s %d folds to %s, and was %s", r.Event.Hostname, r.Event.Rollout, r.Event.Seq, got.verdict, r.Event.Verdict)
	}
	return nil
}

// applyEvent folds an event that is next in its track.
func (s *state) applyEvent(t track, e event, signing store.Signing) outcome {
	if signing != store.SignatureGood {
		s.track(t).Unverified++
	}
	out := outcome{verdict: store.Stored}
	body := e.Body
	h := s.row(t)
	switch {
	case signing == store.SignatureBad:
		out, body = outcome{store.Refused, "the declared key of the host did not sign it"}, nil
	case e.malformed != "":
		out, body = outcome{store.Refused, e.malformed}, nil
	case h == nil:
		out = outcome{store.Unmirrored, "its rollout is not known here (yet)"}
	case e.Body == nil:
		out = outcome{store.Unknown, "a kind of event that this control plane does not know"}
	}
	if h != nil {
		out = s.step(t, h, e, body, out)
	} else {
		s.track(t).Unmirrored = e.Seq
	}
	if out.verdict == store.Refused {
		s.track(t).Refused++
	}
	return out
}

// step applies an event to the host's mirror. Step refuses one without a body,
// and counts its number.
func (s *state) step(t track, h *rollout.HostRow, e event, body lifecycle.Body, out outcome) outcome {
	next, err := lifecycle.Step(h.Host, lifecycle.Event{Seq: e.Seq, Active: e.Active, At: e.At, Body: body})
	var refused *lifecycle.Refused
	if errors.As(err, &refused) {
		body = nil
		if out.verdict == store.Stored {
			out = outcome{store.Refused, refused.Error()}
		}
	}
	quarantines := len(s.world.Quarantines)
	if err := rollout.Record(s.world, next, body); err != nil {
		panic("core: the row was there a moment ago: " + err.Error())
	}
	s.dirty.hosts[t] = true
	if len(s.world.Quarantines) != quarantines {
		s.dirty.world = true
	}
	return out
}

// applyAction folds an action of the planner, the core, or an operator.
func (s *state) applyAction(logID int64, raw []byte) error {
	var a rollout.Action
	if err := json.Unmarshal(raw, &a); err != nil {
		return fmt.Errorf("action: %w", err)
	}
	whole := s.reaches(a.Body, subjectOf(raw))
	if err := rollout.Apply(s.world, a); err != nil {
		return err
	}
	s.dirty.world = true
	for _, id := range whole { // again: its hosts may be there only now
		s.dirty.wholeRollout(s.world, id)
	}
	switch body := a.Body.(type) {
	case rollout.Opened:
		for _, n := range body.Rollouts {
			if err := s.adopt(n.ID, logID); err != nil {
				return err
			}
		}
		s.docsChanged = true
	case rollout.Forgotten:
		s.docsChanged = true
	case rollout.Removed:
		s.forget(body.Rollout)
	}
	return nil
}

// reaches marks what an action will change, and returns the rollouts of which it
// may change any host.
func (s *state) reaches(body rollout.Body, about subject) (whole []string) {
	switch body := body.(type) {
	case rollout.Opened:
		for _, n := range body.Rollouts {
			whole = append(whole, n.ID)
			if ch := s.world.Channels[n.Channel]; ch != nil {
				whole = append(whole, ch.Newest) // it is superseded
			}
		}
	case rollout.Refreshed, rollout.Accepted, rollout.RolledBack, rollout.Removed:
		whole = append(whole, about.Rollout)
	default:
		if about.Rollout != "" {
			s.dirty.rollouts[about.Rollout] = true
		}
		if about.Host != "" && about.Rollout != "" {
			s.dirty.hosts[track{about.Rollout, about.Host}] = true
		}
	}
	for _, id := range whole {
		s.dirty.wholeRollout(s.world, id)
	}
	return whole
}

// subject is what an action is about, as its JSON says it.
type subject struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
}

func subjectOf(action []byte) subject {
	var a struct {
		Body subject `json:"body"`
	}
	_ = json.Unmarshal(action, &a) // an action that is about neither has neither
	return a.Body
}

func encodeDecision(a rollout.Action) (*store.Decision, error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", a.Body.Kind(), err)
	}
	about := subjectOf(raw)
	return &store.Decision{Kind: string(a.Body.Kind()), Hostname: about.Host, Rollout: about.Rollout, Body: raw}, nil
}

// adopt steps the events that hosts sent before their rollout was known.
func (s *state) adopt(id string, logID int64) error {
	waiting, err := s.store.EventsBefore(context.Background(), id, logID)
	if err != nil {
		return err
	}
	var last track
	for _, w := range waiting { // by host
		t := track{id, w.Hostname}
		if s.row(t) == nil {
			continue // the manifest does not have the host
		}
		if t != last { // all of its events are counted anew
			last = t
			*s.track(t) = trackRow{Conflict: s.track(t).Conflict}
		}
		e, err := readStored(w.Event)
		if err != nil {
			return err
		}
		s.applyEvent(t, e, w.Signing)
	}
	return nil
}

// readStored reads an event out of the log.
func readStored(e store.Event) (event, error) {
	var envelope wire.Envelope
	if err := json.Unmarshal(e.Envelope, &envelope); err != nil {
		return event{}, fmt.Errorf("envelope: %w", err)
	}
	return readEvent(envelope.Event)
}

// forget drops what belonged to a pruned rollout.
func (s *state) forget(id string) {
	for host, rollouts := range s.tracks {
		if rollouts[id] != nil {
			delete(rollouts, id)
			s.dirty.tracks[track{id, host}] = true
		}
	}
	delete(s.manifests, id)
	delete(s.served, manifestKey(id))
	s.docsChanged = true
}

// applyDocument folds a document that verified.
func (s *state) applyDocument(r *store.Record) error {
	d := r.Document
	entry := trust.Entry{Document: d.Bytes, Signature: d.Signature, KeyID: d.KeyID, At: r.At, Fleet: d.Fleet}
	var err error
	switch d.Kind {
	case store.KindFleet:
		if err = accept(entry, &s.fleet); err == nil {
			s.dropUnopened()
		}
	case store.KindRevocations:
		err = accept(entry, &s.revocations)
	case store.KindNonces:
		err = accept(entry, &s.nonces)
	case store.KindManifest:
		v := s.manifests[d.Name]
		if err = accept(entry, &v); err == nil {
			s.manifests[d.Name] = v
		}
	default:
		err = fmt.Errorf("a document of unknown kind %q", d.Kind)
	}
	if err != nil {
		return err
	}
	s.served[documentKey(d)] = newServed(d)
	s.docsChanged = true
	if d.Kind == store.KindFleet || d.Kind == store.KindManifest {
		s.publish()
	}
	return nil
}

func accept[T trust.Document | fleet.Manifest](e trust.Entry, into **trust.Verified[T]) error {
	v, err := trust.Accepted[T](e)
	if err != nil {
		return err
	}
	*into = &v
	return nil
}

// dropUnopened lets go of manifests that an older release brought and that were
// never opened: they never will be.
func (s *state) dropUnopened() {
	for id, m := range s.manifests {
		if s.world.Rollouts[id] == nil && m.Doc().FleetResolvedHash != s.fleet.Hash() {
			delete(s.manifests, id)
			delete(s.served, manifestKey(id))
		}
	}
}

// publish shows the planner the newest fleet with the manifests of its release.
func (s *state) publish() {
	if s.fleet == nil {
		return
	}
	release := &rollout.Release{
		Fleet: s.fleet.Doc(), FleetHash: s.fleet.Hash(), SignedAt: s.fleet.SignedAt(),
		Manifests: map[string]rollout.Manifest{},
	}
	for id, m := range s.manifests {
		if m.Doc().FleetResolvedHash != release.FleetHash {
			continue
		}
		other, twice := release.Manifests[m.Doc().Channel]
		if !twice || m.SignedAt().After(other.SignedAt) || m.SignedAt().Equal(other.SignedAt) && id > other.Doc.ID() {
			release.Manifests[m.Doc().Channel] = rollout.Manifest{Doc: m.Doc(), PlanHash: m.PlanHash(), SignedAt: m.SignedAt()}
		}
	}
	known := len(s.world.Machines)
	rollout.Publish(s.world, release)
	if len(s.world.Machines) != known {
		for host := range s.world.Machines {
			if s.machines[host] == nil {
				s.machine(host)
				s.dirty.machines[host] = true
			}
		}
	}
}

func (s *state) applyIssuance(i *store.Issuance) {
	s.issued[i.Serial] = i
	if i.Nonce != "" {
		s.burned[i.Nonce] = i
	}
	if i.Role == string(identity.Agent) {
		s.latest[i.Name] = i
	}
}
