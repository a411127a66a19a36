package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// wantGivenUp asks just before and at the time that a cause becomes due.
func wantGivenUp(t *testing.T, h lifecycle.Host, secs int64, want lifecycle.Cause) lifecycle.GaveUp {
	t.Helper()
	body, wait := due(h, secs-1)
	if body != nil || wait != time.Second {
		t.Errorf("1 s before: due is %v, wait %v", body, wait)
	}
	body, _ = due(h, secs)
	got, ok := body.(lifecycle.GaveUp)
	if !ok || got.Cause != want {
		t.Fatalf("after %d s due is %#v, want Failed{%s}", secs, body, want)
	}
	return got
}

func TestFailingProbeGivesUpAfterItsTime(t *testing.T) {
	h := walk(t, soaking(t), declare, pass, after{10, fail})
	got := wantGivenUp(t, h, 60, lifecycle.CauseProbes)
	if got.SustainedDurationSecs != 60 || len(got.FailingProbes) != 1 || got.FailingProbes[0] != "web" {
		t.Errorf("it says %+v", got)
	}
	if h := walk(t, h, after{60, got}); !h.RollbackOwed || h.Failure.Detail != "web" {
		t.Errorf("owed is %v, detail %q", h.RollbackOwed, h.Failure.Detail)
	}
}

// The first failure ever, not the continuous one, used to start the timer.
func TestBlipAnHourLaterIsTwoBlips(t *testing.T) {
	h := walk(t, soaking(t, func(p *fleet.Policy) { p.SoakSecsByWave = []int{86400} }), declare, confirm, persist, fail, after{5, pass}, after{3600, fail})
	if body, wait := due(h, 0); body != nil || wait != 60*time.Second {
		t.Errorf("due is %v, wait %v, want nothing for 60 s", body, wait)
	}
	h = walk(t, h, after{59, pass})
	if body, _ := due(h, 3600); body != nil {
		t.Errorf("healthy again, due is %v", body)
	}
}

// A failure that is only repeated is the same failure.
func TestRepeatedFailureKeepsItsBeginning(t *testing.T) {
	h := walk(t, soaking(t), declare, fail, after{30, fail}, after{20, lifecycle.ProbeFailureFirst{ProbeName: "web"}})
	wantGivenUp(t, h, 10, lifecycle.CauseProbes)
}

func TestObservedAndDisabledProbesDecideNothing(t *testing.T) {
	for _, mode := range []lifecycle.Mode{lifecycle.Observe, lifecycle.Disabled} {
		h := walk(t, soaking(t), declareOf(mode), fail, confirm)
		if body, _ := due(h, 3600); body != nil {
			t.Errorf("%s: due is %v", mode, body)
		}
		h = walk(t, done(t), declareOf(mode), fail)
		if body, _ := due(h, 3600); body != nil {
			t.Errorf("%s, converged: due is %v", mode, body)
		}
	}
}

// A system without network must not wait for the server to send it back.
func TestConfirmWindowIsTheHostsOwn(t *testing.T) {
	wantGivenUp(t, soaking(t), 360, lifecycle.CauseConfirm)
	if body, _ := due(walk(t, soaking(t), confirm), 3600); body != nil {
		t.Errorf("confirmed, due is %v", body)
	}
	if body, _ := due(soaking(t, unconfirmed), 3600); body != nil {
		t.Errorf("with confirmation off due is %v", body)
	}
	if body, _ := due(unchanged(t), 3600); body != nil {
		t.Errorf("unchanged, due is %v", body)
	}
}

func TestConfirmWindowAfterABootOrAResume(t *testing.T) {
	quick := func(p *fleet.Policy) { p.ConfirmWindowSecs = 50 }
	resumed := func(h lifecycle.Host) lifecycle.Observed {
		o := *seen(h)
		o.Resumed = true
		return o
	}
	late := func(h lifecycle.Host, secs int64) lifecycle.Host { return walk(t, h, after{secs, lifecycle.Notice{}}) }
	booted := observed(newer, newer, "boot-2")
	cases := []struct {
		name string
		host lifecycle.Host
		left int64
	}{
		{"a boot near the end", walk(t, late(soaking(t), 350), booted), 120},
		{"a boot near the beginning", walk(t, late(soaking(t), 10), booted), 350},
		{"a boot long after the confirmation", walk(t, late(proven(t), 3600), booted), 120},
		{"a boot, with a short window", walk(t, late(soaking(t, quick), 40), booted), 50},
		{"a resume near the end", walk(t, late(soaking(t), 350), resumed(soaking(t))), 120},
		{"a resume near the beginning", walk(t, late(soaking(t), 10), resumed(soaking(t))), 350},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { wantGivenUp(t, c.host, c.left, lifecycle.CauseConfirm) })
	}
	if h := walk(t, proven(t), resumed(proven(t))); !h.Confirmed {
		t.Error("a resume took back the confirmation")
	}
}

// Due hands back a look after a resume only where it lengthens the window, and
// only once.
func TestResumeIsWorthAnEventOnlyWhileAConfirmationIsWanted(t *testing.T) {
	at := func(h lifecycle.Host, secs int64) lifecycle.Now {
		o := seen(h)
		o.Resumed = true
		return lifecycle.Now{Active: h.Active + secs, BootID: h.BootID, Observation: o}
	}
	h := soaking(t)
	now := at(h, 350)
	body, _ := lifecycle.Due(h, now)
	if body != *now.Observation {
		t.Fatalf("due is %#v", body)
	}
	h = walk(t, h, after{350, body})
	if body, wait := lifecycle.Due(h, now); body != nil || wait != 120*time.Second {
		t.Errorf("again due is %v, wait %v", body, wait)
	}
	for name, h := range map[string]lifecycle.Host{"early": soaking(t), "confirmed": proven(t), "converged": done(t)} {
		if body, _ := lifecycle.Due(h, at(h, 1)); body != nil {
			t.Errorf("%s: due is %v", name, body)
		}
	}
}

func TestPersistThatGoesOnFailingGivesUp(t *testing.T) {
	failed := lifecycle.PersistFailed{Phase: lifecycle.PhaseReadback}
	h := walk(t, soaking(t), declare, pass, confirm, after{10, failed}, after{900, failed})
	wantGivenUp(t, h, 900, lifecycle.CausePersist)
	if body, _ := due(walk(t, h, persist, failed), 3600); body == nil || body.Kind() != lifecycle.KindConverged {
		t.Errorf("persisted at last, due is %v", body)
	}
}

// When several reasons have come true in one sleep, the first decides: it is the
// difference between a bad closure and a bad network.
func TestTheFirstReasonGivesUp(t *testing.T) {
	h := walk(t, soaking(t), declare, after{310, fail})
	if body, _ := due(h, 3600); body.(lifecycle.GaveUp).Cause != lifecycle.CauseConfirm {
		t.Errorf("due is %#v", body)
	}
	h = walk(t, soaking(t), declare, after{290, fail})
	if body, _ := due(h, 3600); body.(lifecycle.GaveUp).Cause != lifecycle.CauseProbes {
		t.Errorf("due is %#v", body)
	}
}

func TestDeadlineCountsFromTheDispatch(t *testing.T) {
	h := walk(t, activating(t), after{100, lifecycle.Notice{}})
	body, _ := due(h, 21500)
	got, ok := body.(lifecycle.ActivationFailed)
	if !ok || got.Phase != lifecycle.PhaseFetch || got.Mutated {
		t.Fatalf("fetching, due is %#v", body)
	}
	if h := walk(t, h, after{21500, body}); h.RollbackOwed || !h.Terminal() {
		t.Error("a fetch that took too long owes a rollback")
	}
	wantGivenUp(t, switching(t), 21560, lifecycle.CauseDeadline)
	if body, _ := due(staged(t), 100000); body != nil {
		t.Errorf("staged, due is %v", body)
	}
}

// A power cut late in a long soak must not fail the second try by a deadline that
// passed during the soak.
func TestTheSecondTryHasItsOwnDeadline(t *testing.T) {
	week := func(p *fleet.Policy) { p.SoakSecsByWave = []int{7 * 86400} }
	h := walk(t, soaking(t, week), after{3 * 86400, observed(older, older, "boot-2")})
	if h.State != lifecycle.Activating || !h.Retried {
		t.Fatalf("the host is %s", h.State)
	}
	wantGivenUp(t, h, 21600, lifecycle.CauseDeadline)
}

func TestDriftInTheSoakGivesUpAndRollsNothingBack(t *testing.T) {
	for name, now := range map[string]lifecycle.Observed{
		"another system":         observed(other, other, "boot-1"),
		"prior, made live again": observed(older, older, "boot-1"),
		"a boot into another":    observed(other, other, "boot-2"),
	} {
		h := walk(t, proven(t), now)
		body, _ := due(h, 0)
		got, ok := body.(lifecycle.GaveUp)
		if !ok || got.Cause != lifecycle.CauseDrift {
			t.Fatalf("%s: due is %#v", name, body)
		}
		if h := walk(t, h, got); h.RollbackOwed || lifecycle.Want(h).Guard != nil || lifecycle.Quarantines(h) {
			t.Errorf("%s: what somebody chose is rolled back or quarantined", name)
		}
		if body, wait := lifecycle.Due(h, lifecycle.Now{Active: h.Active, BootID: h.BootID}); body != nil || wait != time.Second {
			t.Errorf("%s, not looked at: due is %v, wait %v", name, body, wait)
		}
	}
}

func TestDeferredEndsByABoot(t *testing.T) {
	h := staged(t)
	for _, same := range []lifecycle.Observed{observed(older, newer, "boot-1"), observed(newer, newer, "boot-1")} {
		if body, _ := due(walk(t, h, same), 1e6); body != nil {
			t.Errorf("in the same boot on %s due is %v", same.Current, body)
		}
	}
	booted := walk(t, h, observed(newer, newer, "boot-2"))
	body, _ := due(booted, 0)
	if got, ok := body.(lifecycle.ActivationCompleted); !ok || got.ObservedCurrentClosure != newer || got.BootID != "boot-2" {
		t.Errorf("booted into the target, due is %#v", body)
	}
	if body, wait := lifecycle.Due(booted, lifecycle.Now{Active: booted.Active, BootID: "boot-2"}); body != nil || wait != time.Second {
		t.Errorf("not looked at, due is %v, wait %v", body, wait)
	}
	if h := walk(t, booted, body); h.State != lifecycle.Soaking || h.ConfirmUntil != h.Active+360 {
		t.Errorf("the host is %s", h.State)
	}
	body, _ = due(walk(t, h, observed(other, other, "boot-2")), 0)
	if got, ok := body.(lifecycle.GaveUp); !ok || got.Cause != lifecycle.CauseDrift {
		t.Errorf("booted into a third system, due is %#v", body)
	}
}

// Deferred, then booted into the old system: that used to be stuck for ever.
func TestStagedSystemThatDoesNotBootHasFailed(t *testing.T) {
	h := walk(t, staged(t), observed(older, newer, "boot-2"))
	body, _ := due(h, 0)
	got, ok := body.(lifecycle.ActivationFailed)
	if !ok || got.Phase != lifecycle.PhaseBoot || !strings.Contains(got.StderrTail, "/nix/store/older instead of /nix/store/newer") {
		t.Fatalf("due is %#v", body)
	}
	h = walk(t, h, got)
	if w := lifecycle.Want(h).Rollback; w == nil || !w.BootOnly || w.To != older {
		t.Errorf("wanted is %+v, want only the boot default back", w)
	}
}

// A power cut is not a bad target: once more, and the second time it has failed.
func TestPowerCutIsNotABadTarget(t *testing.T) {
	for name, h := range map[string]lifecycle.Host{"switching": switching(t), "soaking": walk(t, soaking(t), declare, pass, confirm)} {
		h = walk(t, h, after{5, observed(older, older, "boot-2")})
		if h.State != lifecycle.Activating || !h.Retried || h.Confirmed || h.Declared || len(h.Probes) > 0 || lifecycle.Want(h).Switch == nil {
			t.Fatalf("%s: after the first cut: %+v", name, h)
		}
		again := walk(t, h, observed(older, older, "boot-3"))
		if again.State != lifecycle.Activating {
			t.Errorf("%s: after the second cut while switching: %s", name, again.State)
		}
		for _, h := range []lifecycle.Host{
			again,
			walk(t, h, lifecycle.ActivationCompleted{ObservedCurrentClosure: newer, BootID: "boot-2"}, observed(older, older, "boot-3")),
		} {
			body, _ := due(h, 0)
			if got, ok := body.(lifecycle.ActivationFailed); !ok || got.Phase != lifecycle.PhaseBoot {
				t.Fatalf("%s: the second time in %s due is %#v", name, h.State, body)
			}
			if h := walk(t, h, body); !h.RollbackOwed || !lifecycle.Want(h).Rollback.BootOnly || !lifecycle.Quarantines(h) {
				t.Errorf("%s: given up, it owes %v", name, h.RollbackOwed)
			}
		}
	}
}

func TestPersistedTargetThatBootsIntoPriorHasFailed(t *testing.T) {
	h := walk(t, proven(t), observed(older, older, "boot-2"))
	if h.State != lifecycle.Soaking {
		t.Fatalf("the host is %s", h.State)
	}
	if body, _ := due(h, 0); body == nil || body.Kind() != lifecycle.KindActivationFailed {
		t.Errorf("due is %v", body)
	}
}

// What the machine did in a boot is not decided about before it was looked at.
func TestNothingIsDecidedInABootThatWasNotLookedAt(t *testing.T) {
	h := soaking(t)
	if body, wait := lifecycle.Due(h, lifecycle.Now{Active: h.Active + 3600, BootID: "boot-2"}); body != nil || wait != time.Second {
		t.Errorf("due is %v, wait %v", body, wait)
	}
}

func TestWhatWasSeenIsDueFirst(t *testing.T) {
	h := proven(t)
	look := observed(other, newer, "boot-1")
	if body, _ := lifecycle.Due(h, lifecycle.Now{Active: h.Active + 300, Observation: &look}); body != look {
		t.Errorf("due is %#v", body)
	}
	// An empty field says nothing: it is no change, and is not due again for ever.
	if body, _ := lifecycle.Due(done(t), lifecycle.Now{Active: 10000, Observation: &lifecycle.Observed{}}); body != nil {
		t.Errorf("an empty look: due is %#v", body)
	}
	// What a switch or a rollback of ours does is told by its outcome, but a boot
	// ends both.
	for _, h := range []lifecycle.Host{switching(t), walk(t, soaking(t), signal)} {
		half := observed(newer, newer, "boot-1")
		half.Current = other
		if body, _ := lifecycle.Due(h, lifecycle.Now{Active: h.Active, Observation: &half}); body != nil {
			t.Errorf("in the middle of a change due is %#v", body)
		}
		boot := observed(older, older, "boot-2")
		if body, _ := lifecycle.Due(h, lifecycle.Now{Active: h.Active, Observation: &boot}); body != boot {
			t.Errorf("after a boot due is %#v", body)
		}
	}
	for name, h := range map[string]lifecycle.Host{"Pending": pending(t, newer), "Superseded": walk(t, soaking(t), supersede)} {
		if body, wait := lifecycle.Due(h, lifecycle.Now{Active: 1e6, Observation: &look}); body != nil || wait != 0 {
			t.Errorf("%s: due is %#v, wait %v", name, body, wait)
		}
	}
}

func TestHealthAfterConvergenceIsToldAndRollsNothingBack(t *testing.T) {
	h := walk(t, done(t), after{100, fail})
	body, _ := due(h, 0)
	got, ok := body.(lifecycle.HealthChanged)
	if !ok || got.Healthy || got.Flaps != 0 || len(got.FailingProbes) != 1 {
		t.Fatalf("due is %#v", body)
	}
	h = walk(t, h, got)
	if h.State != lifecycle.Converged || lifecycle.Want(h).Rollback != nil {
		t.Errorf("the host is %s", h.State)
	}
	h = walk(t, h, after{20, pass})
	if body, wait := due(h, 0); body != nil || wait != 580*time.Second {
		t.Errorf("20 s later due is %v, wait %v, want one in 10 minutes", body, wait)
	}
	h = walk(t, h, after{20, fail}, after{20, pass}, after{20, fail}, after{20, pass})
	body, _ = due(h, 500)
	if got, ok := body.(lifecycle.HealthChanged); !ok || !got.Healthy || got.Flaps != 4 || len(got.FailingProbes) != 0 {
		t.Errorf("after 10 minutes due is %#v, want healthy, 4 flaps", body)
	}
	h = walk(t, h, after{500, body}, after{1000, pass})
	if body, _ := due(h, 0); body != nil {
		t.Errorf("unchanged, due is %v", body)
	}
}

func TestFlapsThatEndWhereTheyBeganAreNotToldAtOnce(t *testing.T) {
	h := walk(t, done(t), fail, pass)
	if body, wait := due(h, 0); body != nil || wait != 0 {
		t.Errorf("due is %v, wait %v", body, wait)
	}
}

func TestDriftAfterConvergenceIsTold(t *testing.T) {
	for _, now := range []lifecycle.Observed{observed(other, newer, "boot-1"), observed(newer, older, "boot-1")} {
		h := walk(t, done(t), now)
		body, _ := due(h, 0)
		got, ok := body.(lifecycle.HealthChanged)
		if !ok || !got.Drifted || !got.Healthy {
			t.Fatalf("due is %#v", body)
		}
		h = walk(t, h, got, after{600, observed(newer, newer, "boot-1")})
		if body, _ := due(h, 0); body == nil || body.(lifecycle.HealthChanged).Drifted {
			t.Errorf("back again, due is %#v", body)
		}
	}
}

// Clocks are stepped in every state, by months; nothing is decided by them.
func TestClockStepsDecideNothing(t *testing.T) {
	for name, h := range situations(t) {
		for _, days := range []int{-90, 90} {
			stepped, err := lifecycle.Step(h, lifecycle.Event{Seq: h.Seq + 1, Active: h.Active, At: noon.AddDate(0, 0, days), Body: lifecycle.Notice{}})
			if err != nil {
				t.Fatal(err)
			}
			before, beforeWait := due(h, 30)
			after, afterWait := due(stepped, 30)
			if beforeWait != afterWait || (before == nil) != (after == nil) || before != nil && before.Kind() != after.Kind() {
				t.Errorf("%s, %+d days: due was %v in %v, is %v in %v", name, days, before, beforeWait, after, afterWait)
			}
		}
	}
}

// Running time stands still while the machine sleeps, and an event that claims
// that it ran backwards is not believed.
func TestRunningTimeDoesNotRunBackwards(t *testing.T) {
	h := walk(t, proven(t), after{-1000, lifecycle.Notice{}})
	if h.Active != proven(t).Active {
		t.Errorf("the running time is %d", h.Active)
	}
}
