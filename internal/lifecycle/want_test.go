package lifecycle_test

import (
	"reflect"
	"testing"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// What is wanted in each situation, whole.
func TestWant(t *testing.T) {
	both := []fleet.Closure{newer, older}
	guard := func(changes ...func(*lifecycle.Guard)) *lifecycle.Guard {
		g := &lifecycle.Guard{Target: newer, Prior: older, WindowSecs: 360, AliveSecs: 120}
		for _, change := range changes {
			change(g)
		}
		return g
	}
	by := func(active int64) func(*lifecycle.Guard) {
		return func(g *lifecycle.Guard) { g.ConfirmBy = active }
	}
	confirmed := func(g *lifecycle.Guard) { g.Confirmed = true }
	bootOnly := func(g *lifecycle.Guard) { g.BootOnly = true }
	liveness := func(g *lifecycle.Guard) { g.WindowSecs = 0 }
	toSwitch := &lifecycle.Switch{Target: newer, Prior: older}
	toPersist := &lifecycle.Persist{Target: newer}
	back := &lifecycle.Rollback{To: older}
	backAtBoot := &lifecycle.Rollback{To: older, BootOnly: true}
	failedLive := lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, ExitCode: 1}
	inhibited := lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch, ExitCode: 100, BootRequired: true}
	reboot := lifecycle.RebootStarted{Reason: lifecycle.RebootRollback}
	owed := walk(t, proven(t), gaveUp(lifecycle.CauseProbes))
	windowed := staged(t, rebootsInWindow)

	cases := []struct {
		name string
		host lifecycle.Host
		want lifecycle.Work
	}{
		{"Pending", pending(t, newer),
			lifecycle.Work{}},
		{"Activating", activating(t),
			lifecycle.Work{Fetch: &lifecycle.Fetch{Target: newer}, Roots: both}},
		{"Activating on the target", walk(t, pending(t, newer), lifecycle.DispatchAck{CurrentClosureAtDispatch: newer}),
			lifecycle.Work{Fetch: &lifecycle.Fetch{Target: newer}, Roots: []fleet.Closure{newer}}},
		{"mutated at 40", switching(t),
			lifecycle.Work{Switch: toSwitch, Guard: guard(by(40 + 1800 + 360 + 60)), Roots: both}},
		{"mutated, confirmation off", switching(t, unconfirmed),
			lifecycle.Work{Switch: toSwitch, Guard: guard(liveness), Roots: both}},
		{"Deferred, reboot by hand", staged(t),
			lifecycle.Work{Guard: guard(bootOnly), Roots: both}},
		{"Deferred, reboot in a window", windowed,
			lifecycle.Work{Guard: guard(bootOnly), Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootDeferred, Window: &fleet.RebootWindow{Start: "02:00"}}}},
		{"Deferred, reboot asked for", walk(t, windowed, lifecycle.RebootStarted{Reason: lifecycle.RebootDeferred}),
			lifecycle.Work{Guard: guard(bootOnly), Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootDeferred,
				Window: &fleet.RebootWindow{Start: "02:00"}, NotBefore: 40 + 6*3600}}},
		{"Deferred, booted", walk(t, windowed, observed(newer, newer, "boot-2")),
			lifecycle.Work{Guard: guard(), Roots: both}},
		{"Soaking from 60", soaking(t),
			lifecycle.Work{Guard: guard(by(60 + 360 + 60)), Probes: true, Confirm: true, Roots: both}},
		{"Soaking, confirmation off", soaking(t, unconfirmed),
			lifecycle.Work{Guard: guard(liveness), Probes: true, Persist: toPersist, Roots: both}},
		{"Soaking, confirmed", walk(t, soaking(t), confirm),
			lifecycle.Work{Guard: guard(confirmed), Probes: true, Persist: toPersist, Roots: both}},
		{"Soaking, persisted", walk(t, soaking(t), confirm, persist),
			lifecycle.Work{Guard: guard(confirmed), Probes: true, Roots: both}},
		{"Soaking, booted again", walk(t, soaking(t), confirm, persist, observed(newer, newer, "boot-2")),
			lifecycle.Work{Guard: guard(by(420 + 60)), Probes: true, Confirm: true, Roots: both}},
		{"Soaking, persists last, unproven", walk(t, soaking(t, persistConverged), confirm, declare),
			lifecycle.Work{Guard: guard(confirmed), Probes: true, Roots: both}},
		{"Soaking, persists last, proven", walk(t, soaking(t, persistConverged), confirm, declare, pass),
			lifecycle.Work{Guard: guard(confirmed), Probes: true, Persist: &lifecycle.Persist{Target: newer, NotBefore: 360}, Roots: both}},
		{"Converged", done(t),
			lifecycle.Work{Probes: true}},
		{"Failed, nothing owed", walk(t, activating(t), gaveUp(lifecycle.CauseSignal)),
			lifecycle.Work{}},
		{"Failed, owed", owed,
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both}},
		{"Failed, owed, prior runs", walk(t, owed, observed(older, newer, "boot-2")),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: backAtBoot, Roots: both}},
		{"rollback failed once", walk(t, owed, failedLive),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both}},
		{"rollback failed twice", walk(t, owed, failedLive, failedLive),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootRollback}}},
		{"rollback inhibited", walk(t, owed, inhibited),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootRollback}}},
		{"boot default not back twice", walk(t, owed, lifecycle.RollbackFailed{Phase: lifecycle.PhaseBoot}, lifecycle.RollbackFailed{Phase: lifecycle.PhaseReadback}),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both}},
		{"rollback by a second boot", walk(t, owed, inhibited, reboot, observed(newer, older, "boot-2")),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootRollback, NotBefore: 60 + 600}}},
		{"rollback by a third boot", walk(t, owed, inhibited, reboot, after{600, reboot}),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootRollback, NotBefore: 660 + 1200}}},
		{"rollback by a tenth boot", walk(t, owed, inhibited, reboot, reboot, reboot, reboot, reboot, reboot, reboot, reboot, reboot),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: back, Roots: both, Reboot: &lifecycle.Reboot{Reason: lifecycle.RebootRollback, NotBefore: 60 + 6*3600}}},
		{"rollback booted", walk(t, owed, inhibited, reboot, observed(older, older, "boot-2")),
			lifecycle.Work{Guard: guard(confirmed, liveness), Rollback: backAtBoot, Roots: both}},
		{"Reverted", walk(t, owed, revert),
			lifecycle.Work{}},
		{"Superseded", walk(t, soaking(t), supersede),
			lifecycle.Work{}},
		{"unchanged", unchanged(t),
			lifecycle.Work{Probes: true, Roots: []fleet.Closure{older}}},
		{"unchanged, another boot default", walk(t, unchanged(t, persistConverged), observed(older, other, "boot-1")),
			lifecycle.Work{Probes: true, Persist: &lifecycle.Persist{Target: older}, Roots: []fleet.Closure{older}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := lifecycle.Want(c.host)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %s\nwant %s", describe(got), describe(c.want))
			}
			if after := lifecycle.Want(crash(t, c.host)); !reflect.DeepEqual(after, got) {
				t.Errorf("after a crash %s", describe(after))
			}
		})
	}
}

// 300 hosts used to switch to what they ran already, and a failing probe
// "reverted" them to themselves.
func TestUnchangedHostIsNeverSwitchedGuardedRolledBackOrQuarantined(t *testing.T) {
	start := lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodNone, PriorClosure: older, BootID: "boot-1"}
	begun := walk(t, pending(t, older), lifecycle.DispatchAck{CurrentClosureAtDispatch: older}, start)
	if w := lifecycle.Want(begun); w.Switch != nil || w.Guard != nil {
		t.Errorf("begun, it wants %s", describe(w))
	}
	failed := lifecycle.ActivationFailed{Phase: lifecycle.PhaseSwitch, Mutated: true}
	for name, h := range map[string]lifecycle.Host{
		"failed switch":  walk(t, begun, failed),
		"failing probe":  walk(t, unchanged(t), gaveUp(lifecycle.CauseProbes)),
		"signal":         walk(t, unchanged(t), signal),
		"pending signal": walk(t, begun, signal, lifecycle.ActivationCompleted{ObservedCurrentClosure: older, BootID: "boot-1"}),
	} {
		if w := lifecycle.Want(h); h.State != lifecycle.Failed || !h.Terminal() || w.Rollback != nil || w.Guard != nil || lifecycle.Quarantines(h) {
			t.Errorf("%s: %s, wants %s", name, h.State, describe(w))
		}
	}
	rebooted := walk(t, unchanged(t), observed(older, older, "boot-2"))
	if rebooted.State != lifecycle.Soaking || lifecycle.Want(rebooted).Confirm {
		t.Errorf("rebooted, it is %s and wants %s", rebooted.State, describe(lifecycle.Want(rebooted)))
	}
}
