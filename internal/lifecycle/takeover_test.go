package lifecycle_test

import (
	"reflect"
	"testing"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// next is a newer rollout that is ready to begin.
func next(t testing.TB, target, current fleet.Closure) lifecycle.Host {
	t.Helper()
	h := pending(t, target)
	h.Rollout = "stable@def"
	return walk(t, h, lifecycle.DispatchAck{CurrentClosureAtDispatch: current})
}

func started(method string, prior, bootDefault fleet.Closure) lifecycle.Body {
	return lifecycle.ActivationStarted{SwitchMethod: method, PriorClosure: prior, BootID: "boot-1", BootDefaultWas: bootDefault}
}

func TestTakeOver(t *testing.T) {
	const method = lifecycle.MethodTestThenBoot
	newest := fleet.Closure("newest")
	owed := walk(t, soaking(t), gaveUp(lifecycle.CauseConfirm))
	retrying := walk(t, owed, lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch})
	persisted := walk(t, soaking(t), confirm, persist)
	ended := walk(t, owed, revert)
	look := func(h lifecycle.Host) lifecycle.Observed { return *seen(h) }
	done := done(t)

	cases := []struct {
		name string
		live *lifecycle.Host
		next lifecycle.Host
		seen lifecycle.Observed
		want lifecycle.Takeover
	}{
		{"alone", nil, next(t, newest, older), observed(older, older, "boot-1"), lifecycle.Takeover{
			New: []lifecycle.Body{observed(older, older, "boot-1"), started(method, older, older)}}},
		{"alone, what it runs", nil, next(t, older, older), observed(older, older, "boot-1"), lifecycle.Takeover{
			New: []lifecycle.Body{observed(older, older, "boot-1"), started(lifecycle.MethodNone, older, older),
				lifecycle.ActivationCompleted{ObservedCurrentClosure: older, BootID: "boot-1"}}}},
		{"after a converged one", &done, next(t, newest, newer), look(done), lifecycle.Takeover{
			New: []lifecycle.Body{look(done), started(method, newer, newer)}}},
		{"after a reverted one", &ended, next(t, newest, older), look(ended), lifecycle.Takeover{
			New: []lifecycle.Body{look(ended), started(method, older, older)}}},
		{"in the soak", &persisted, next(t, newest, newer), look(persisted), lifecycle.Takeover{
			Old: []lifecycle.Body{supersede},
			New: []lifecycle.Body{look(persisted), started(method, older, newer)}}},
		{"the same closure in its soak", &persisted, next(t, newer, newer), look(persisted), lifecycle.Takeover{
			Old: []lifecycle.Body{supersede},
			New: []lifecycle.Body{look(persisted), started(lifecycle.MethodNone, older, newer),
				lifecycle.ActivationCompleted{ObservedCurrentClosure: newer, BootID: "boot-1"}}}},
		{"back to what ran, in the soak", &persisted, next(t, older, newer), look(persisted), lifecycle.Takeover{
			Old: []lifecycle.Body{supersede},
			New: []lifecycle.Body{look(persisted), started(method, older, newer)}}},
		{"while it switches", ptr(switching(t)), next(t, newest, older), look(switching(t)), lifecycle.Takeover{
			Wait: "its switch has not ended"}},
		{"before its rollback", &owed, next(t, newest, newer), look(owed), lifecycle.Takeover{
			Wait: "its rollback comes first"}},
		{"after a failed rollback", &retrying, next(t, newest, newer), look(retrying), lifecycle.Takeover{
			Old: []lifecycle.Body{supersede},
			New: []lifecycle.Body{look(retrying), started(method, older, older)}}},
		{"staged", ptr(staged(t)), next(t, newest, older), look(staged(t)), lifecycle.Takeover{
			Wait:    "its target is staged: prior has to be the boot default first",
			Unstage: &lifecycle.Rollback{To: older, BootOnly: true}}},
		{"staged and taken back", ptr(staged(t)), next(t, newest, older), observed(older, older, "boot-1"), lifecycle.Takeover{
			Old: []lifecycle.Body{observed(older, older, "boot-1"), supersede},
			New: []lifecycle.Body{observed(older, older, "boot-1"), started(method, older, older)}}},
		{"drifted in the soak", &persisted, next(t, newest, newer), observed(other, newer, "boot-1"), lifecycle.Takeover{
			Wait: "what was seen of the machine decides about the live rollout first"}},
		{"booted what was staged", ptr(staged(t)), next(t, newest, older), observed(newer, newer, "boot-2"), lifecycle.Takeover{
			Wait: "what was seen of the machine decides about the live rollout first"}},
		{"power cut in the soak", ptr(soaking(t)), next(t, newest, newer), observed(older, older, "boot-2"), lifecycle.Takeover{
			Wait: "its switch has not ended"}},
		{"begun already", nil, switching(t), observed(older, older, "boot-1"), lifecycle.Takeover{
			Wait: "the rollout is not at the point where it begins"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := lifecycle.TakeOver(c.live, c.next, c.seen, method)
			if !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got  %+v\nwant %+v", got, c.want)
			}
			// What it says is legal, and leaves one live rollout at most.
			begun := walk(t, c.next, got.New...)
			if got.Wait == "" && !begun.Live() {
				t.Errorf("the newer one is %s", begun.State)
			}
			if c.live == nil || got.Wait != "" {
				return
			}
			if old := walk(t, *c.live, got.Old...); old.Live() {
				t.Errorf("the older one is still %s", old.State)
			}
		})
	}
}

func ptr(h lifecycle.Host) *lifecycle.Host { return &h }

// What a rollout goes back to used to be a system that was only on trial.
func TestPriorIsInheritedFromALiveRollout(t *testing.T) {
	live, done := soaking(t), done(t)
	for name, c := range map[string]struct {
		live *lifecycle.Host
		want fleet.Closure
	}{"none": {nil, newer}, "on trial": {&live, older}, "proven": {&done, newer}} {
		if got := lifecycle.Prior(c.live, newer); got != c.want {
			t.Errorf("%s: prior is %s, want %s", name, got, c.want)
		}
	}
}

// A release back to what ran before, in the soak of another, is a switch like any
// other: until it is done the host is on a system that was never proven.
func TestReleaseBackToPriorInTheSoakOfAnother(t *testing.T) {
	live := soaking(t)
	over := lifecycle.TakeOver(&live, next(t, older, newer), *seen(live), lifecycle.MethodTestThenBoot)
	h := walk(t, next(t, older, newer), over.New...)
	if w := lifecycle.Want(h); h.Unchanged() || w.Switch == nil || w.Guard == nil {
		t.Fatalf("it wants %s", describe(w))
	}
	failed := walk(t, h, lifecycle.ActivationFailed{ExitCode: 2, Phase: lifecycle.PhaseSwitch, Mutated: true})
	if w := lifecycle.Want(failed).Rollback; w == nil || w.To != older || lifecycle.Quarantines(failed) {
		t.Errorf("its switch failed: %+v", failed)
	}
	back := walk(t, h, lifecycle.ActivationCompleted{ObservedCurrentClosure: older, BootID: "boot-1"})
	if w := lifecycle.Want(back); back.State != lifecycle.Soaking || w.Guard != nil || !w.Confirm {
		t.Errorf("back, it wants %s", describe(w))
	}
	if h := walk(t, back, gaveUp(lifecycle.CauseProbes)); h.RollbackOwed {
		t.Error("back, it owes a rollback to itself")
	}
	booted := walk(t, h, observed(older, older, "boot-2"))
	if booted.Retried || booted.State != lifecycle.Activating {
		t.Errorf("a boot into prior, which is the target: %+v", booted)
	}
}

// A staged system that was staged over one on trial: neither prior nor target
// runs, and nobody has changed anything. The one on trial stays guarded.
func TestStagedOverASystemOnTrial(t *testing.T) {
	live := soaking(t)
	over := lifecycle.TakeOver(&live, next(t, "newest", newer), *seen(live), lifecycle.MethodBoot)
	h := walk(t, walk(t, next(t, "newest", newer), over.New...), deferral)
	if body, _ := due(h, 1000); body != nil {
		t.Errorf("due is %#v", body)
	}
	if g := lifecycle.Want(h).Guard; g == nil || g.BootOnly || g.Prior != older {
		t.Errorf("the guard is %+v", g)
	}
	body, _ := due(walk(t, h, observed(other, other, "boot-1")), 0)
	if got, ok := body.(lifecycle.GaveUp); !ok || got.Cause != lifecycle.CauseDrift {
		t.Errorf("changed by somebody, due is %#v", body)
	}
}
