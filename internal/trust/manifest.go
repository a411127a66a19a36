package trust

import (
	"time"

	"nixfleet/internal/fleet"
)

// Expect is what the caller of VerifyManifest knows before it reads one. A field
// that is zero expects nothing.
type Expect struct {
	RolloutID string                 // that was asked for
	Host      string                 // that must have a target in it
	PlanHash  string                 // of the manifest that was accepted under this id before
	Fleet     *Verified[fleet.Fleet] // that it was published with; completes a manifest without policy
}

// VerifyManifest checks a rollout manifest at one point of time. Its own window
// says how old it may be, else that of its channel in the expected fleet
// document; the window given narrows it and, where neither says one, is it. The
// mark is that of the newest manifest accepted before: one over all channels on
// a host, one for each channel at a control plane.
//
// A manifest with the plan hash that is expected refreshes the bytes that the
// caller holds; another plan under a known id is ErrRepublished, for ever.
func VerifyManifest(doc, sig []byte, slot Slot, now time.Time, window time.Duration, mark Mark, want Expect) (Verified[fleet.Manifest], error) {
	none := Verified[fleet.Manifest]{}
	v, err := open[fleet.Manifest](doc, sig, slot, now)
	if err != nil {
		return none, err
	}
	if v.doc.Policy == nil && want.Fleet == nil {
		return none, refuse(ErrIncomplete, "the manifest has no policy, and the fleet document %.64q that would complete it is not at hand", v.doc.FleetResolvedHash)
	}
	if err := checkDates(v.signedAt, slot, now, manifestWindow(v.doc, want.Fleet, window)); err != nil {
		return none, err
	}
	if err := mark.admit(v.signedAt, v.planHash); err != nil {
		return none, err
	}
	if err := finish(&v, want.Fleet); err != nil {
		return none, err
	}
	if err := want.check(v); err != nil {
		return none, err
	}
	return v, nil
}

func manifestWindow(m *fleet.Manifest, f *Verified[fleet.Fleet], given time.Duration) time.Duration {
	own := m.Window()
	if own == 0 && f != nil {
		own = f.doc.Channels[m.Channel].Window()
	}
	return narrowed(own, given)
}

// finish ties the manifest to the fleet document that it was published with,
// takes from it what an older producer left out, and checks what is there then.
func finish(v *Verified[fleet.Manifest], f *Verified[fleet.Fleet]) error {
	m := v.doc
	m.FillDefaults()
	if f != nil {
		if m.FleetResolvedHash != f.hash {
			return refuse(ErrMismatch, "published with the fleet document %.64q, not with %s", m.FleetResolvedHash, f.hash)
		}
		if m.Policy == nil {
			v.completer = f.bytes
		}
		if err := fleet.CompleteManifest(m, f.doc); err != nil {
			return refuse(ErrMismatch, "%v", err)
		}
	}
	if err := m.Validate(); err != nil {
		return refuse(ErrMalformed, "%v", err)
	}
	return nil
}

// check compares the manifest with what was asked for.
func (want Expect) check(v Verified[fleet.Manifest]) error {
	id := v.doc.ID()
	if want.RolloutID != "" && id != want.RolloutID {
		return refuse(ErrMismatch, "the manifest is of rollout %s, not of %.200q", id, want.RolloutID)
	}
	if _, ok := v.doc.Target(want.Host); !ok && want.Host != "" {
		return refuse(ErrMismatch, "rollout %s has no target for host %.253q", id, want.Host)
	}
	if want.PlanHash != "" && v.planHash != want.PlanHash {
		return refuse(ErrRepublished, "rollout %s was accepted with plan %s and came again with plan %s", id, want.PlanHash, v.planHash)
	}
	return nil
}
