package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

func (a Recovering) check(*World) error { return nil }

// The first sign is kept: a recovering database recovers from all of them.
func (a Recovering) apply(w *World, when moment) {
	if w.Recovery == nil {
		w.Recovery = &Flag{Why: a.Why, At: when.at}
	}
}

func (a Recovered) check(w *World) error {
	if w.Recovery == nil {
		return errors.New("nothing is being recovered")
	}
	return nil
}

func (a Recovered) apply(w *World, _ moment) { w.Recovery = nil }

// A channel may be paused before its first rollout, so it is not looked up.
func (a Paused) check(*World) error { return nil }

func (a Paused) apply(w *World, when moment) {
	w.channel(a.Channel).Paused = &Flag{Who: a.Who, Why: a.Why, At: when.at}
}

func (a Resumed) check(w *World) error {
	if ch := w.Channels[a.Channel]; ch == nil || ch.Paused == nil {
		return fmt.Errorf("channel %s is not paused", a.Channel)
	}
	return nil
}

func (a Resumed) apply(w *World, _ moment) { w.Channels[a.Channel].Paused = nil }

func (a Accepted) check(w *World) error {
	r, err := w.newest(a.Rollout)
	if err != nil {
		return err
	}
	if !r.State.Unfinished() && !r.State.Halted() {
		return fmt.Errorf("rollout %s is %s", r.ID, r.State)
	}
	taken := map[string]bool{}
	for _, name := range a.Hosts {
		_, h, err := w.find(a.Rollout, name)
		switch {
		case err != nil:
			return err
		case !h.failed() && h.Accepted == nil && !r.haltedBy(name):
			return fmt.Errorf("host %s has not failed: it is %s", name, h.State)
		}
		taken[name] = true
	}
	var left []string
	for _, name := range w.failures(r) {
		if !taken[name] {
			left = append(left, name)
		}
	}
	if len(left) >= r.haltLimit() {
		return fmt.Errorf("rollout %s stays halted by %s", r.ID, strings.Join(left, ", "))
	}
	return nil
}

func (a Accepted) apply(w *World, when moment) {
	for _, name := range a.Hosts {
		w.change(a.Rollout, name, func(_ *Rollout, h *HostRow) {
			if h.failed() {
				h.Accepted = &Flag{Who: a.Who, Why: a.Why, At: when.at}
			}
		})
	}
	if r := w.Rollouts[a.Rollout]; r.State.Halted() {
		r.enter(Active, when)
	}
}

// haltedBy tells whether the host is one of those that halted the rollout. It may
// have returned since, and goes on; its rollout must be resumable all the same.
func (r *Rollout) haltedBy(host string) bool {
	return r.Halt != nil && slices.Contains(r.Halt.Hosts, host)
}

// failures are the hosts that count towards the halt.
func (w *World) failures(r *Rollout) []string {
	var names []string
	for i := range r.Hosts {
		if h := &r.Hosts[i]; h.failed() && !w.gone(r, h.Hostname) {
			names = append(names, h.Hostname)
		}
	}
	return names
}

// haltLimit is how many failed or lost hosts halt the rollout.
func (r *Rollout) haltLimit() int { return r.Manifest.Policy.HaltAfter.Of(len(r.Hosts)) }

func (a Forced) check(w *World) error {
	r, err := w.newest(a.Rollout)
	switch {
	case err != nil:
		return err
	case !r.State.Unfinished():
		return fmt.Errorf("rollout %s is %s", r.ID, r.State)
	case r.Wave != a.Wave:
		return fmt.Errorf("rollout %s is in wave %d", r.ID, r.Wave)
	}
	var waiting []string
	for i := range r.Hosts {
		if h := &r.Hosts[i]; h.Wave == r.Wave && !w.done(r, h) {
			waiting = append(waiting, h.Hostname)
		}
	}
	if len(waiting) > 0 {
		return fmt.Errorf("wave %d waits for %s: skip them or let them end", r.Wave, strings.Join(waiting, ", "))
	}
	return nil
}

func (a Forced) apply(w *World, _ moment) { w.Rollouts[a.Rollout].Forced = &a.Wave }

func (a RolledBack) check(w *World) error {
	r, err := w.newest(a.Rollout)
	switch {
	case err != nil:
		return err
	case r.State == Terminal:
		return fmt.Errorf("rollout %s has converged: only a new release moves its hosts", r.ID)
	case r.Manifest.Policy.OnHealthFailure != fleet.HealthRollbackAndHalt:
		return fmt.Errorf("the policy of rollout %s is %s: its hosts would not obey", r.ID, r.Manifest.Policy.OnHealthFailure)
	}
	return nil
}

func (a RolledBack) apply(w *World, when moment) {
	r := w.Rollouts[a.Rollout]
	back, _ := RollbackScope(r)
	flag := Flag{Who: a.Who, Why: a.Why, At: when.at}
	for _, name := range back {
		w.change(r.ID, name, func(_ *Rollout, h *HostRow) {
			h.Signal = &Signal{Flag: flag, ID: h.orderID()}
			h.Orders++
		})
	}
	if !r.State.Halted() {
		r.enter(Failed, when)
		r.Halt = &Halt{Flag: flag}
	}
}

// RollbackScope tells which hosts a RolledBack asks to leave the rollout, and
// which it leaves as they are, both by wave, then name.
func RollbackScope(r *Rollout) (back, stay []string) {
	for i := range r.Hosts {
		h := &r.Hosts[i]
		if h.Order != nil || h.State == lifecycle.Activating || h.State == lifecycle.Deferred || h.State == lifecycle.Soaking {
			back = append(back, h.Hostname)
		} else {
			stay = append(stay, h.Hostname)
		}
	}
	return back, stay
}

func (a QuarantineCleared) check(w *World) error {
	for _, q := range w.Quarantines {
		if q.Channel == a.Channel && q.Closure == a.Closure {
			return nil
		}
	}
	return fmt.Errorf("closure %s is not quarantined in channel %s", a.Closure, a.Channel)
}

func (a QuarantineCleared) apply(w *World, _ moment) {
	kept := make([]Quarantine, 0, len(w.Quarantines))
	for _, q := range w.Quarantines {
		if q.Channel != a.Channel || q.Closure != a.Closure {
			kept = append(kept, q)
		}
	}
	w.Quarantines = kept
}

func (a Forgotten) check(w *World) error {
	if _, forgotten := w.Forgotten[a.Host]; forgotten {
		return fmt.Errorf("host %s is forgotten already", a.Host)
	}
	return nil
}

func (a Forgotten) apply(w *World, when moment) {
	w.Forgotten[a.Host] = Flag{Who: a.Who, Why: a.Why, At: when.at}
	w.GivenBefore[a.Host] = when.at
}

func (a Remembered) check(w *World) error {
	if _, forgotten := w.Forgotten[a.Host]; !forgotten {
		return fmt.Errorf("host %s is not forgotten", a.Host)
	}
	return nil
}

func (a Remembered) apply(w *World, _ moment) { delete(w.Forgotten, a.Host) }
