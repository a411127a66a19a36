package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"nixfleet/internal/fleet"
)

// decides tells whether a probe of the mode counts. A mode that is not known here
// does: what cannot be understood must not let a host converge.
func (m Mode) decides() bool { return m != Observe && m != Disabled }

func (p Probe) failing() bool { return p.Status == Fail && p.Mode.decides() }

func byName(p Probe, name string) int { return cmp.Compare(p.Name, name) }

// declared takes the probes of the live system. Results of probes that were
// declared before stay: only an activation forgets them, not a restarted agent.
func (h *Host) declared(b ProbeTopologyDeclared) string {
	if h.State != Soaking && h.State != Converged {
		return wrongState
	}
	probes := make([]Probe, 0, len(b.Probes))
	for _, d := range b.Probes {
		p := Probe{Name: d.ProbeName, Kind: d.Kind, Mode: d.Mode}
		if i, ok := slices.BinarySearchFunc(h.Probes, d.ProbeName, byName); ok && h.Probes[i].Kind == d.Kind {
			p.Status, p.Failing = h.Probes[i].Status, h.Probes[i].Failing
		}
		at, twice := slices.BinarySearchFunc(probes, d.ProbeName, byName)
		if twice {
			return fmt.Sprintf("it declares the probe %q twice", d.ProbeName)
		}
		probes = slices.Insert(probes, at, p)
	}
	h.watchHealth(func() { h.Probes = probes })
	h.Declared = true
	return ""
}

// probed takes a probe's verdict. A pass ends what failed before it: two blips an
// hour apart are two blips.
func (h *Host) probed(name string, s Status) string {
	if h.State != Soaking && h.State != Converged {
		return wrongState
	}
	i, ok := slices.BinarySearchFunc(h.Probes, name, byName)
	if !ok {
		return fmt.Sprintf("the probe %q is not declared", name)
	}
	if s != Pass && s != Fail {
		return fmt.Sprintf("the status %q is neither pass nor fail", s)
	}
	p := h.Probes[i]
	p.Status = s
	switch {
	case s == Pass:
		p.Failing = nil
	case p.Failing == nil:
		since := h.Active
		p.Failing = &since
	}
	h.watchHealth(func() {
		h.Probes = slices.Clone(h.Probes) // the slice belongs to the host before the event
		h.Probes[i] = p
	})
	return ""
}

func (h *Host) confirmed(b Confirmed) string {
	if h.State != Soaking {
		return wrongState
	}
	if b.BootID != "" && h.LiveBootID != "" && b.BootID != h.LiveBootID {
		return "it confirms a boot in which the target was not seen live"
	}
	h.Confirmed = true
	return ""
}

func (h *Host) persistedNow() string {
	if h.State != Soaking {
		return wrongState
	}
	h.Persisted = true
	h.PersistFailing = nil
	h.BootDefault = h.Target
	return ""
}

func (h *Host) persistFailed() string {
	if h.State != Soaking {
		return wrongState
	}
	if h.PersistFailing == nil && !h.Persisted {
		since := h.Active
		h.PersistFailing = &since
	}
	return ""
}

func (h *Host) converged(b HasConverged, e Event) string {
	if h.State != Soaking {
		return wrongState
	}
	if b.CurrentClosure != h.Target {
		return fmt.Sprintf("%s runs, the target is %s", b.CurrentClosure, h.Target)
	}
	if why := h.unproven(); why != "" {
		return why
	}
	if left := h.soakEnds() - h.Active; left > 0 {
		return fmt.Sprintf("%d of %d s of the soak are left", left, h.soakSecs())
	}
	if !h.persisted() {
		return "the target is not the boot default yet"
	}
	h.Unhealthy, h.Drifted, h.HealthChangedActive, h.HealthChanges = false, false, nil, 0
	h.enter(Converged, e)
	return ""
}

// unproven names what is missing for convergence beside the soak and the boot
// default; "" when nothing is.
func (h *Host) unproven() string {
	if h.Current != h.Target {
		return fmt.Sprintf("%s runs, the target is %s", h.Current, h.Target)
	}
	if !h.Declared {
		return "no probes were declared since the activation, not even none"
	}
	for _, p := range h.Probes {
		if p.Mode.decides() && p.Status != Pass {
			return fmt.Sprintf("the probe %q has not passed", p.Name)
		}
	}
	if h.confirmAwaited() {
		return "no uplink was reached from the target in this boot"
	}
	return ""
}

// soakSecs is how long the host soaks: an unchanged one has nothing to soak.
func (h *Host) soakSecs() int64 {
	if h.Unchanged() {
		return 0
	}
	return int64(h.SoakSecs)
}

func (h *Host) soakEnds() int64 { return h.CompletedActive + h.soakSecs() }

// confirmRequired tells whether an uplink has to be reached from the target.
func (h *Host) confirmRequired() bool {
	return h.Policy.Confirm != fleet.ConfirmOff && !h.Unchanged()
}

func (h *Host) confirmAwaited() bool { return h.confirmRequired() && !h.Confirmed }

// persisted tells whether the target is the boot default, by the agent's doing or
// because it was before.
func (h *Host) persisted() bool {
	return h.Persisted || h.Unchanged() && h.BootDefault == h.Target
}

// forgetSoak drops what an earlier time with the live target has shown.
func (h *Host) forgetSoak() {
	h.CompletedActive, h.CompletedAt, h.LiveBootID = 0, time.Time{}, ""
	h.Declared, h.Probes = false, nil
	h.Confirmed, h.ConfirmUntil = false, 0
	h.Persisted, h.PersistFailing = false, nil
}
