package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// verdict says whether an act holds. The first thing that is not as it should be
// is the detail of a broken one.
type verdict struct {
	ok     bool
	detail string
}

func holds(format string, args ...any) verdict { return verdict{true, fmt.Sprintf(format, args...)} }

func broken(format string, args ...any) verdict { return verdict{false, fmt.Sprintf(format, args...)} }

// everybodyConverged: every host has a certificate that it got for its token, and
// runs and boots what the rollout asked for.
func everybodyConverged(f *findings) verdict {
	for _, host := range f.hosts {
		enrolled := slices.ContainsFunc(f.certificates, func(c wire.CertificateView) bool {
			return c.Name == host && c.Role == "agent" && c.Requester == "token"
		})
		if !enrolled {
			return broken("%s has not enrolled with its token", host)
		}
	}
	if v := f.allConverged(); !v.ok {
		return v
	}
	return holds("%d hosts enrolled and converged", len(f.hosts))
}

// allConverged: the rollout is finished, and every host is on its target, as the
// control plane says and as its folder shows.
func (f *findings) allConverged() verdict {
	if f.rollout.State != string(rollout.Terminal) {
		return broken("the rollout is %s: %s", f.rollout.State, f.unfinished())
	}
	for _, host := range f.hosts {
		target, ok := f.target(host)
		row, view, machine := f.rows[host], f.views[host], f.machines[host]
		switch {
		case !ok:
			return broken("%s is not in the rollout", host)
		case row.State != lifecycle.Converged:
			return broken("%s is %s", host, row.State)
		case view.Current != target:
			return broken("%s is said to run %s, not %s", host, view.Current, target)
		case machine.current != target:
			return broken("%s runs %s, not %s", host, machine.current, target)
		case machine.bootDefault != target:
			return broken("%s boots %s, not %s", host, machine.bootDefault, target)
		}
	}
	return holds("")
}

// unfinished says which hosts have not converged.
func (f *findings) unfinished() string {
	var parts []string
	for _, host := range f.hosts {
		if row := f.rows[host]; row.State != lifecycle.Converged {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s %s", host, row.State, f.views[host].Why)))
		}
	}
	return strings.Join(parts, "; ")
}

func (f *findings) target(host string) (fleet.Closure, bool) {
	t, ok := f.manifest.Target(host)
	return t.TargetClosure, ok
}

// wavesSoaked: every host soaked as long as the signed plan asks, by its own
// running time, and no host of a wave began before all of the wave before had
// converged, by the order in which the control plane stored the events.
func wavesSoaked(f *findings) verdict {
	if v := f.allConverged(); !v.ok {
		return v
	}
	waves := f.rollout.Waves
	shortest := make([]int64, waves)
	began, done := make([]int64, waves), make([]int64, waves) // log ids: first beginning, last convergence
	for _, host := range f.hosts {
		t, _ := f.manifest.Target(host)
		w := t.WaveIndex
		if w >= waves {
			return broken("%s is in wave %d of %d", host, w+1, waves)
		}
		ack, _, acked := first[lifecycle.DispatchAck](f, host)
		live, _, switched := first[lifecycle.ActivationCompleted](f, host)
		end, _, converged := first[lifecycle.HasConverged](f, host)
		if !acked || !switched || !converged {
			return broken("%s has not reported its acceptance, switch and convergence", host)
		}
		soak := end.Active - live.Active
		if shortest[w] == 0 || soak < shortest[w] {
			shortest[w] = soak
		}
		if began[w] == 0 || ack.LogID < began[w] {
			began[w] = ack.LogID
		}
		done[w] = max(done[w], end.LogID)
	}
	var soaks []string
	for w := range waves {
		if w > 0 && began[w] < done[w-1] {
			return broken("wave %d began before wave %d had converged", w+1, w)
		}
		// What the demo promises, whatever its documents say.
		if shortest[w] < soakSecs {
			return broken("wave %d soaked %d s, %d s are due", w+1, shortest[w], soakSecs)
		}
		soaks = append(soaks, fmt.Sprintf("wave %d soaked %d s", w+1, shortest[w]))
	}
	if waves < 2 {
		return broken("there was one wave only")
	}
	return holds("%s", strings.Join(soaks, ", "))
}

// canaryReverted: the canary gave the release up because of its probe and went
// back to what it ran before, without having been asked; the rollout is halted;
// no other host has seen anything of it.
func canaryReverted(f *findings) verdict {
	canary, others := f.hosts[0], f.hosts[1:]
	if f.rollout.State != string(rollout.Reverted) {
		return broken("the rollout is %s, it should have halted and its canary have gone back", f.rollout.State)
	}
	if row := f.rows[canary]; row.State != lifecycle.Reverted {
		return broken("%s is %s", canary, row.State)
	}
	_, started, ok := first[lifecycle.ActivationStarted](f, canary)
	if !ok {
		return broken("%s never began", canary)
	}
	if _, _, asked := first[lifecycle.RollbackSignal](f, canary); asked {
		return broken("%s was asked to go back", canary)
	}
	_, gaveUp, ok := first[lifecycle.GaveUp](f, canary)
	if !ok || gaveUp.Cause != lifecycle.CauseProbes {
		return broken("%s did not give up because of its probes", canary)
	}
	_, back, ok := first[lifecycle.RollbackComplete](f, canary)
	switch machine := f.machines[canary]; {
	case !ok:
		return broken("%s has not reported that it went back", canary)
	case back.RevertedToClosure != started.PriorClosure:
		return broken("%s went back to %s, it came from %s", canary, back.RevertedToClosure, started.PriorClosure)
	case machine.current != started.PriorClosure:
		return broken("%s runs %s, it came from %s", canary, machine.current, started.PriorClosure)
	case machine.bootDefault != started.PriorClosure:
		return broken("%s boots %s, it came from %s", canary, machine.bootDefault, started.PriorClosure)
	}
	for _, host := range others {
		target, _ := f.target(host)
		machine := f.machines[host]
		touched := slices.ContainsFunc(machine.switches, func(s switchLine) bool { return s.closure == target })
		if events := f.of(host); len(events) > 0 || touched || machine.current == target || machine.bootDefault == target {
			return broken("%s was touched: %d events, runs %s", host, len(events), machine.current)
		}
	}
	return holds("%s failed its probe for %d s and is back on %s; %d hosts untouched", canary, gaveUp.SustainedDurationSecs, short(started.PriorClosure), len(others))
}

// survivedKills: agents were started again in the middle of a switch and the
// control plane in the middle of the rollout, all hosts converged nevertheless,
// no switch was run twice, and the control plane has every event that a host
// committed exactly once.
func survivedKills(f *findings) verdict {
	if v := f.allConverged(); !v.ok {
		return v
	}
	var killed []string
	events := 0
	for _, host := range f.hosts {
		began, _, ok := first[lifecycle.ActivationStarted](f, host)
		live, _, done := first[lifecycle.ActivationCompleted](f, host)
		if !ok || !done {
			return broken("%s has not reported its switch", host)
		}
		if within(f.machines[host].agentStarts, began.At, live.At) {
			killed = append(killed, host)
		}
		target, _ := f.target(host)
		if n := f.switchRuns(host, target); n != 1 {
			return broken("%s ran its switch program %d times", host, n)
		}
		if v := f.storedOnce(host); !v.ok {
			return v
		}
		events += len(f.evidence[host])
	}
	if len(killed) == 0 {
		return broken("no agent began anew in the middle of a switch")
	}
	if !within(f.planeStarts, f.rollout.OpenedAt, f.rollout.Since) {
		return broken("the control plane did not begin anew in the middle of the rollout")
	}
	return holds("agents of %s and the control plane came back; %d events, each stored once", strings.Join(killed, ", "), events)
}

func within(times []time.Time, from, to time.Time) bool {
	return slices.ContainsFunc(times, func(t time.Time) bool { return t.After(from) && t.Before(to) })
}

// switchRuns is how often a host's switch program was begun for a closure.
func (f *findings) switchRuns(host string, c fleet.Closure) int {
	n := 0
	for _, s := range f.machines[host].switches {
		if s.begin && s.action == "test" && s.closure == c {
			n++
		}
	}
	return n
}

// storedOnce: what is in the host's journal about the rollout is what the control
// plane has, one for one and in order, numbered without a gap.
func (f *findings) storedOnce(host string) verdict {
	committed, stored := f.machines[host].journal, f.evidence[host]
	if len(committed) != len(stored) {
		return broken("%s committed %d events, %d are stored", host, len(committed), len(stored))
	}
	for i := range committed {
		event, err := wire.DecodeEvent(stored[i].Event)
		if err != nil {
			return broken("%s: event %d: %v", host, i+1, err)
		}
		if event.Seq != int64(i+1) {
			return broken("%s: event %d has the number %d", host, i+1, event.Seq)
		}
		if committed[i].Signature != stored[i].Signature || !sameJSON(committed[i].Event, stored[i].Event) {
			return broken("%s: event %d is stored otherwise than it was committed", host, i+1)
		}
	}
	return holds("")
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// short is a closure's name without its hash.
func short(c fleet.Closure) string {
	_, name, _ := strings.Cut(string(c), "-")
	return name
}
