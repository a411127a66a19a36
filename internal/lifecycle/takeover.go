package lifecycle

import "nixfleet/internal/fleet"

// Prior is what a rollout that begins to change the machine would go back to: the
// prior of the live rollout that it supersedes, because the live one's target is
// not proven, else what runs. live is nil where there is none.
func Prior(live *Host, current fleet.Closure) fleet.Closure {
	if live != nil && live.Live() {
		return live.Prior
	}
	return current
}

// Takeover is how a rollout begins to change the machine. Old and New are to be
// stepped and committed in one transaction.
type Takeover struct {
	Wait    string    // why it may not begin yet; then nothing else is set
	Unstage *Rollback // to be done and observed before TakeOver is asked again; then Wait is set too
	Old     []Body    // events of the live rollout
	New     []Body    // events of the next one
}

// TakeOver is asked when next is accepted, fetched and checked, with what was seen
// of the machine for this very input; live is the rollout before it, or nil.
// method is the switch's; a target that runs already needs none.
func TakeOver(live *Host, next Host, seen Observed, method string) Takeover {
	if next.State != Activating || next.Mutated {
		return Takeover{Wait: "the rollout is not at the point where it begins"}
	}
	var t Takeover
	if live != nil && live.Live() {
		old := *live
		if old.differs(seen) {
			old.observed(seen, Event{})
			t.Old = append(t.Old, seen)
		}
		if body, _ := Due(old, Now{Active: old.Active, BootID: seen.BootID, Observation: &seen}); body != nil {
			return Takeover{Wait: "what was seen of the machine decides about the live rollout first"}
		}
		if why := old.holdsOn(); why != "" {
			return Takeover{Wait: why, Unstage: old.unstage()}
		}
		t.Old = append(t.Old, WasSuperseded{By: next.Rollout})
	}
	if next.differs(seen) {
		t.New = append(t.New, seen)
	}
	if seen.Current == next.Target {
		method = MethodNone
	}
	t.New = append(t.New, ActivationStarted{
		SwitchMethod:   method,
		PriorClosure:   Prior(live, seen.Current),
		BootID:         seen.BootID,
		BootDefaultWas: seen.BootDefault,
	})
	if method == MethodNone {
		t.New = append(t.New, ActivationCompleted{ObservedCurrentClosure: seen.Current, BootID: seen.BootID})
	}
	return t
}

// unstage is what takes a staged target back: the next boot leads to prior.
func (h *Host) unstage() *Rollback {
	if h.State != Deferred {
		return nil
	}
	return &Rollback{To: h.Prior, BootOnly: true}
}
