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
	if v := f.wentBack(canary, lifecycle.CauseProbes); !v.ok {
		return v
	}
	if v := f.untouched(others); !v.ok {
		return v
	}
	_, gaveUp, _ := first[lifecycle.GaveUp](f, canary)
	return holds("%s failed its probe for %d s and is back on %s; %d hosts untouched", canary, gaveUp.SustainedDurationSecs, short(f.machines[canary].current), len(others))
}

// wentBack: the host gave the release up for a cause, without having been asked,
// and runs and boots the exact closure that it came from.
func (f *findings) wentBack(host string, cause lifecycle.Cause) verdict {
	if row := f.rows[host]; row.State != lifecycle.Reverted {
		return broken("%s is %s", host, row.State)
	}
	_, started, ok := first[lifecycle.ActivationStarted](f, host)
	if !ok {
		return broken("%s never began", host)
	}
	if _, _, asked := first[lifecycle.RollbackSignal](f, host); asked {
		return broken("%s was asked to go back", host)
	}
	_, gaveUp, ok := first[lifecycle.GaveUp](f, host)
	if !ok || gaveUp.Cause != cause {
		return broken("%s did not give up because of its %s", host, cause)
	}
	_, back, ok := first[lifecycle.RollbackComplete](f, host)
	switch machine := f.machines[host]; {
	case !ok:
		return broken("%s has not reported that it went back", host)
	case back.RevertedToClosure != started.PriorClosure:
		return broken("%s went back to %s, it came from %s", host, back.RevertedToClosure, started.PriorClosure)
	case machine.current != started.PriorClosure:
		return broken("%s runs %s, it came from %s", host, machine.current, started.PriorClosure)
	case machine.bootDefault != started.PriorClosure:
		return broken("%s boots %s, it came from %s", host, machine.bootDefault, started.PriorClosure)
	}
	return holds("")
}

// untouched: the hosts have seen nothing of the rollout.
func (f *findings) untouched(hosts []string) verdict {
	for _, host := range hosts {
		target, _ := f.target(host)
		machine := f.machines[host]
		touched := slices.ContainsFunc(machine.switches, func(s switchLine) bool { return s.closure == target })
		if events := f.of(host); len(events) > 0 || touched || machine.current == target || machine.bootDefault == target {
			return broken("%s was touched: %d events, runs %s", host, len(events), machine.current)
		}
	}
	return holds("")
}

// cutOffReverted: every host of the first wave ran a system on which nothing
// confirmed it and from which it told nothing, and went back by itself, one by its
// agent after the confirm window and one by its guard; it never would have booted
// that system; no other host has seen anything of it.
func cutOffReverted(f *findings) verdict {
	if f.rollout.State != string(rollout.Reverted) {
		return broken("the rollout is %s, it should have halted and its hosts have gone back", f.rollout.State)
	}
	var others, byAgent, byGuard []string
	for _, host := range f.hosts {
		t, _ := f.manifest.Target(host)
		if t.WaveIndex > 0 {
			others = append(others, host)
			continue
		}
		if v := f.wentBack(host, lifecycle.CauseConfirm); !v.ok {
			return v
		}
		if v := f.wasCutOff(host); !v.ok {
			return v
		}
		_, gaveUp, _ := first[lifecycle.GaveUp](f, host)
		_, notice, _ := first[lifecycle.Notice](f, host)
		switch {
		case notice.Code == lifecycle.NoticeGuardActed:
			byGuard = append(byGuard, host)
		case gaveUp.SustainedDurationSecs < confirmWindowSecs:
			return broken("%s gave up after %d s, its window is %d s", host, gaveUp.SustainedDurationSecs, confirmWindowSecs)
		default:
			byAgent = append(byAgent, host)
		}
	}
	if len(byAgent) == 0 {
		return broken("no agent gave up by itself")
	}
	if len(byGuard) == 0 {
		return broken("no guard had to act")
	}
	if v := f.untouched(others); !v.ok {
		return v
	}
	return holds("cut off, %s gave up after %d s without a confirmation, and the guard of %s acted for its agent; both are back; %d hosts untouched",
		strings.Join(byAgent, ", "), confirmWindowSecs, strings.Join(byGuard, ", "), len(others))
}

// wasCutOff: the host ran the target, nothing confirmed that, the control plane
// heard of it only when the host was back, and it was never made the boot default.
func (f *findings) wasCutOff(host string) verdict {
	target, _ := f.target(host)
	live, completed, ok := first[lifecycle.ActivationCompleted](f, host)
	if !ok || completed.ObservedCurrentClosure != target {
		return broken("%s never ran its target", host)
	}
	if _, _, confirmed := first[lifecycle.Confirmed](f, host); confirmed {
		return broken("%s confirmed a system without a network", host)
	}
	back, _, ok := first[lifecycle.RollbackComplete](f, host)
	if !ok || live.ReceivedAt.Before(back.At) {
		return broken("%s told about its target while it ran it", host)
	}
	if slices.ContainsFunc(f.machines[host].switches, func(s switchLine) bool { return s.action == "boot" && s.closure == target }) {
		return broken("%s would have booted a system that nothing confirmed", host)
	}
	return holds("")
}

// survivedKills: in every wave an agent was killed in the middle of its switch, and
// the control plane between the first wave and the end; all hosts converged
// nevertheless, no switch was run twice, and the control plane has every event that
// a host committed exactly once.
func survivedKills(f *findings) verdict {
	if v := f.allConverged(); !v.ok {
		return v
	}
	var killed []string
	waves := map[int]bool{} // in which an agent was killed
	var firstDone time.Time
	events := 0
	for _, host := range f.hosts {
		t, _ := f.manifest.Target(host)
		began, _, ok := first[lifecycle.ActivationStarted](f, host)
		live, _, done := first[lifecycle.ActivationCompleted](f, host)
		end, _, converged := first[lifecycle.HasConverged](f, host)
		if !ok || !done || !converged {
			return broken("%s has not reported its switch and its convergence", host)
		}
		if within(f.machines[host].revivals, began.At, live.At) {
			killed = append(killed, host)
			waves[t.WaveIndex] = true
		}
		if t.WaveIndex == 0 && end.At.After(firstDone) {
			firstDone = end.At
		}
		if n := f.switchRuns(host, t.TargetClosure); n != 1 {
			return broken("%s ran its switch program %d times", host, n)
		}
		if v := f.storedOnce(host); !v.ok {
			return v
		}
		events += len(f.evidence[host])
	}
	if f.rollout.Waves < 2 {
		return broken("there was one wave only")
	}
	for w := range f.rollout.Waves {
		if !waves[w] {
			return broken("no agent of wave %d was killed in the middle of its switch", w+1)
		}
	}
	if !within(f.revivals, firstDone, f.rollout.Since) {
		return broken("the control plane was not killed between the first wave and the end")
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
