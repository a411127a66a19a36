package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// world is a host with its mirror, over a machine that does what it is told.
type world struct {
	t        *rapid.T
	h        lifecycle.Host // at the agent
	mirror   lifecycle.Host // at the control plane, from the same events
	machine  lifecycle.Observed
	boots    int
	rollouts int
	active   int64
	settled  fleet.Closure // what the last rollout that ended left running
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, machine: observed(older, older, "boot-1"), boots: 1, settled: older}
	w.h = w.rollout(rapid.SampledFrom([]fleet.Closure{newer, newer, newer, older}).Draw(t, "target"))
	w.mirror = w.h
	return w
}

// rollout is the host in another rollout, under some policy.
func (w *world) rollout(target fleet.Closure) lifecycle.Host {
	p := fleet.DefaultPolicy()
	oneOf := func(values ...string) string { return rapid.SampledFrom(values).Draw(w.t, "policy") }
	p.OnHealthFailure = oneOf(fleet.HealthRollbackAndHalt, fleet.HealthHalt)
	p.Confirm = oneOf(fleet.ConfirmRequired, fleet.ConfirmOff)
	p.Persist = oneOf(fleet.PersistConfirmed, fleet.PersistConverged)
	p.Reboot = oneOf(fleet.RebootManual, fleet.RebootInWindow)
	p.SoakSecsByWave = []int{rapid.SampledFrom([]int{0, 300, 86400}).Draw(w.t, "soak")}
	m := &fleet.Manifest{Channel: "stable", Policy: &p, HostSet: []fleet.Target{{Hostname: "web-01", TargetClosure: target}}}
	w.rollouts++
	h, err := lifecycle.New("web-01", fmt.Sprintf("stable@%x", w.rollouts), m, "plan", signedAt)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// step applies an event on both sides, and checks what holds for every event.
func (w *world) step(e lifecycle.Event) error {
	w.t.Helper()
	before := encode(w.t, w.h)
	got, err := lifecycle.Step(w.h, e)
	if encode(w.t, w.h) != before {
		w.t.Fatalf("%T in state %s changed the host that it was given", e.Body, w.h.State)
	}
	var refused *lifecycle.Refused
	var gap *lifecycle.Gap
	switch {
	case errors.As(err, &gap):
		if encode(w.t, got) != before {
			w.t.Fatal("a gap changed the host")
		}
	case errors.As(err, &refused):
		same := got
		same.Seq = w.h.Seq
		if encode(w.t, same) != before || got.Seq != e.Seq {
			w.t.Fatalf("%v, and more than the number changed", err)
		}
	case err != nil:
		w.t.Fatalf("an error of no type: %v", err)
	}
	w.h = got

	// The control plane reads its copy from a database and takes the same event.
	mirror, mirrorErr := lifecycle.Step(decode(w.t, encode(w.t, w.mirror)), e)
	if (err == nil) != (mirrorErr == nil) {
		w.t.Fatalf("the host says %v, the mirror %v", err, mirrorErr)
	}
	w.mirror = mirror
	w.check()
	return err
}

// next is an event with the next number.
func (w *world) next(b lifecycle.Body) lifecycle.Event {
	return lifecycle.Event{Seq: w.h.Seq + 1, Active: w.active, At: noon.Add(time.Duration(w.active) * time.Second), Body: b}
}

// commit steps an event that must be legal.
func (w *world) commit(b lifecycle.Body) {
	w.t.Helper()
	if err := w.step(w.next(b)); err != nil {
		w.t.Fatalf("%v\n%s", err, encode(w.t, w.h))
	}
}

// check is what holds in every state.
func (w *world) check() {
	w.t.Helper()
	if encode(w.t, w.mirror) != encode(w.t, w.h) {
		w.t.Fatalf("the mirror is not the host:\n%s\n%s", encode(w.t, w.mirror), encode(w.t, w.h))
	}
	want := lifecycle.Want(w.h)
	if after := lifecycle.Want(decode(w.t, encode(w.t, w.h))); !reflect.DeepEqual(want, after) {
		w.t.Fatalf("before a crash it wants %s, after it %s", describe(want), describe(after))
	}
	h := w.h
	if h.Terminal() {
		want.Probes = false // they go on after Converged
		if !reflect.DeepEqual(want, lifecycle.Work{}) {
			w.t.Fatalf("%s is terminal and wants %s", h.State, describe(want))
		}
	}
	if h.RollbackOwed && (h.State != lifecycle.Failed || !h.Mutated || h.Prior == "") {
		w.t.Fatalf("a rollback is owed in %s, with prior %q", h.State, h.Prior)
	}
	if h.Unchanged() && (h.RollbackOwed || want.Guard != nil || want.Switch != nil || lifecycle.Quarantines(h)) {
		w.t.Fatalf("an unchanged host wants %s", describe(want))
	}
	if h.Live() && h.Mutated && !slices.Contains(want.Roots, h.Prior) {
		w.t.Fatalf("prior may be collected in %s", h.State)
	}
	if !slices.IsSortedFunc(h.Probes, func(a, b lifecycle.Probe) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	}) {
		w.t.Fatal("the probes are not sorted")
	}
}

func encode(t *rapid.T, h lifecycle.Host) string {
	doc, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

func decode(t *rapid.T, doc string) lifecycle.Host {
	var h lifecycle.Host
	if err := json.Unmarshal([]byte(doc), &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// due commits what is due, and tells how long nothing more is. What Due yields is
// never refused, and there is an end to it.
func (w *world) due() time.Duration {
	w.t.Helper()
	for range 10 {
		look := w.machine
		body, wait := lifecycle.Due(w.h, lifecycle.Now{Active: max(w.active, w.h.Active), BootID: look.BootID, Observation: &look})
		if body == nil {
			return wait
		}
		w.active = max(w.active, w.h.Active)
		w.commit(body)
	}
	w.t.Fatalf("Due yields without end\n%s", encode(w.t, w.h))
	return 0
}

// work does one piece of what is wanted, well. It tells whether there was any.
func (w *world) work() bool {
	want := lifecycle.Want(w.h)
	target := w.h.Target
	switch {
	case w.h.State == lifecycle.Pending:
		w.commit(lifecycle.DispatchAck{CurrentClosureAtDispatch: w.machine.Current})
	case want.Fetch != nil:
		method := rapid.SampledFrom([]string{lifecycle.MethodTestThenBoot, lifecycle.MethodBoot}).Draw(w.t, "method")
		over := lifecycle.TakeOver(nil, w.h, w.machine, method)
		if over.Wait != "" {
			w.t.Fatalf("alone it waits: %s", over.Wait)
		}
		for _, b := range over.New {
			w.commit(b)
		}
	case want.Switch != nil && w.machine.BootDefault != want.Switch.Prior && w.machine.BootDefault != target:
		w.machine.BootDefault = want.Switch.Prior // the first act: from here a power cut leads to prior
	case want.Switch != nil && w.h.SwitchMethod == lifecycle.MethodBoot && w.machine.Current != target:
		w.machine.BootDefault = target
		w.commit(lifecycle.ActivationDeferred{Component: "kernel"})
	case want.Switch != nil:
		w.machine.Current = target
		w.commit(lifecycle.ActivationCompleted{ObservedCurrentClosure: target, BootID: w.machine.BootID})
	case want.Reboot != nil && want.Reboot.NotBefore <= w.active && want.Reboot.Reason == lifecycle.RebootRollback:
		w.machine.BootDefault = want.Rollback.To
		w.commit(lifecycle.RebootStarted{Reason: want.Reboot.Reason})
		w.boot()
	case want.Rollback != nil:
		w.machine.Current, w.machine.BootDefault = want.Rollback.To, want.Rollback.To
		w.commit(lifecycle.RollbackComplete{RevertedToClosure: want.Rollback.To})
	case w.h.State == lifecycle.Deferred: // in a window, or by a person
		w.boot()
	case want.Confirm:
		w.commit(lifecycle.Confirmed{Via: "control-plane", BootID: w.machine.BootID})
	case want.Persist != nil && want.Persist.NotBefore <= w.active:
		w.machine.BootDefault = target
		w.commit(lifecycle.Persisted{Generation: 1, BootDefaultVerified: true})
	case want.Probes && !w.h.Declared:
		w.commit(declare)
	case want.Probes && slices.ContainsFunc(w.h.Probes, func(p lifecycle.Probe) bool { return p.Status != lifecycle.Pass }):
		for _, p := range w.h.Probes {
			w.commit(lifecycle.ProbeResult{ProbeName: p.Name, Status: lifecycle.Pass})
		}
	default:
		return false
	}
	return true
}

// boot starts the machine again, in what it boots.
func (w *world) boot() {
	w.boots++
	w.machine.BootID = fmt.Sprintf("boot-%d", w.boots)
	w.machine.Current = w.machine.BootDefault
}

// fault lets something go wrong that can go wrong on a machine which nobody else
// touches.
func (w *world) fault() {
	want := lifecycle.Want(w.h)
	someProbe := lifecycle.ProbeResult{ProbeName: "web", Status: lifecycle.Fail}
	switch rapid.IntRange(0, 6).Draw(w.t, "fault") {
	case 0:
		w.boot()
	case 1:
		w.active += rapid.SampledFrom([]int64{1, 59, 60, 299, 360, 1800, 21600}).Draw(w.t, "time")
	case 2:
		w.commit(lifecycle.AnswerSignal(w.h, "o1", "operator"))
	case 3:
		w.takeOver(rapid.SampledFrom([]fleet.Closure{older, newer, "newest"}).Draw(w.t, "newer target"))
	case 4:
		if want.Probes && len(w.h.Probes) > 0 {
			w.commit(someProbe)
		}
	case 5:
		if want.Persist != nil {
			w.commit(lifecycle.PersistFailed{Phase: lifecycle.PhaseBoot})
		}
	case 6:
		switch {
		case want.Switch != nil:
			w.machine.Current = rapid.SampledFrom([]fleet.Closure{w.machine.Current, w.h.Target}).Draw(w.t, "half-way at")
			w.commit(lifecycle.ActivationFailed{ExitCode: 2, Phase: lifecycle.PhaseSwitch, Mutated: true})
		case want.Rollback != nil:
			w.commit(lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, BootRequired: rapid.Bool().Draw(w.t, "inhibited")})
		case want.Guard != nil: // the agent is dead, and the guard acts
			w.machine.Current, w.machine.BootDefault = w.h.Prior, w.h.Prior
			for _, b := range lifecycle.GuardActed(w.h, "the agent was silent") {
				w.commit(b)
			}
		}
	}
}

// takeOver lets a newer rollout begin, if it may.
func (w *world) takeOver(target fleet.Closure) {
	if w.h.State == lifecycle.Pending || w.h.State == lifecycle.Activating && !w.h.Mutated {
		return // the newer one would simply replace it
	}
	w.note()
	next := w.rollout(target)
	next, err := lifecycle.Step(next, lifecycle.Event{Seq: 1, At: noon, Body: lifecycle.DispatchAck{CurrentClosureAtDispatch: w.machine.Current}})
	if err != nil {
		w.t.Fatal(err)
	}
	over := lifecycle.TakeOver(&w.h, next, w.machine, lifecycle.MethodTestThenBoot)
	if over.Unstage != nil {
		w.machine.BootDefault = over.Unstage.To
		over = lifecycle.TakeOver(&w.h, next, w.machine, lifecycle.MethodTestThenBoot)
	}
	if over.Wait != "" {
		return
	}
	for _, b := range over.Old {
		w.commit(b)
	}
	if w.h.Live() {
		w.t.Fatalf("two rollouts would be live; the older is %s", w.h.State)
	}
	w.h, w.mirror, w.active = next, next, 0
	for _, b := range over.New {
		w.commit(b)
	}
	if w.h.Prior != w.settled {
		w.t.Fatalf("prior is %s, the last that was not on trial is %s", w.h.Prior, w.settled)
	}
}

// note remembers what a rollout that has ended left running. (A superseded one left
// it to the next.)
func (w *world) note() {
	if w.h.Terminal() && w.h.State != lifecycle.Superseded {
		w.settled = w.machine.Current
	}
}

// disturb lets anything happen: somebody else at the machine, events that lie, that
// are illegal, repeated, too early, or run backwards.
func (w *world) disturb() {
	closure := rapid.SampledFrom([]fleet.Closure{older, newer, other})
	switch rapid.IntRange(0, 5).Draw(w.t, "disturbance") {
	case 0:
		w.machine.Current = closure.Draw(w.t, "somebody makes live")
	case 1:
		w.machine.BootDefault = closure.Draw(w.t, "somebody boots")
	default:
		e := w.next(anyBody(w.t, w.h))
		e.Seq += rapid.SampledFrom([]int64{0, 0, 0, 0, 0, -1, 1}).Draw(w.t, "number")
		e.Active += rapid.SampledFrom([]int64{0, 0, 10, -50}).Draw(w.t, "running time")
		_ = w.step(e) // legal or not; step has checked what has to hold
		w.active = max(w.active, w.h.Active)
	}
}

func anyBody(t *rapid.T, h lifecycle.Host) lifecycle.Body {
	bodies := events(h)
	names := make([]string, 0, len(bodies))
	for name := range bodies {
		names = append(names, name)
	}
	slices.Sort(names)
	return bodies[rapid.SampledFrom(names).Draw(t, "event")]
}

// TestModelOfAnyHistory lets a host live through legal and illegal histories. All
// along the mirror is the host, a crash changes nothing that is wanted, what is due
// is legal, and nothing is wanted in a terminal state. In the end the faults stop,
// and every path reaches a terminal state.
func TestModelOfAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 60).Draw(t, "length") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				w.disturb()
			case 1:
				w.due()
			default:
				w.due() // the machine is looked at before anything is done to it
				w.work()
			}
		}
		w.settle()
	})
}

// TestModelEndsOnPriorOrTarget lets a host live through faults only, release after
// release: it ends on what it was told to run, or on the last system that was not
// on trial, and it says which.
func TestModelEndsOnPriorOrTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 60).Draw(t, "length") {
			w.due()
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				w.fault()
			} else {
				w.work()
			}
		}
		w.settle()
		h, on := w.h, w.machine
		switch {
		case h.State == lifecycle.Converged && on.Current == h.Target && on.BootDefault == h.Target:
		case h.State == lifecycle.Reverted && on.Current == h.Prior && on.BootDefault == h.Prior:
		case h.State == lifecycle.Failed && (!h.Mutated || h.Prior == h.Target):
		case h.State == lifecycle.Failed && h.Policy.OnHealthFailure == fleet.HealthHalt && h.Failure.Cause == lifecycle.CauseProbes:
			// Left for a person to look at; a boot leads back as long as it was not persisted.
			if on.Current != h.Target && on.Current != h.Prior {
				t.Fatalf("halted on %s", on.Current)
			}
		default:
			t.Fatalf("%s for %+v, on a machine that runs %s and boots %s\n%s", h.State, h.Failure, on.Current, on.BootDefault, encode(t, h))
		}
	})
}

// settle lets the machine do what is wanted until nothing is.
func (w *world) settle() {
	for range 100 {
		wait := w.due()
		if w.h.Terminal() {
			return
		}
		if !w.work() {
			if wait == 0 {
				break
			}
			w.active += int64(wait / time.Second)
		}
	}
	w.t.Fatalf("stuck, wanting %s on %+v\n%s", describe(lifecycle.Want(w.h)), w.machine, encode(w.t, w.h))
}
