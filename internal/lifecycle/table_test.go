package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// The table: what each event does to a host in each situation. P Pending,
// A Activating, D Deferred, S Soaking, C Converged, F Failed with nothing owed,
// O Failed with a rollback owed, R Reverted, U Superseded; a dot is a refusal.
//
//	pend    Pending                        prov    Soaking, proven and persisted, soak over
//	acti    Activating                     conv    Converged
//	mut     Activating, mutated            fail    Failed, nothing owed
//	sign    the same, a signal pending     owed    Failed, rollback owed
//	def     Deferred                       again   the same after a RollbackFailed
//	unst    Deferred, un-staged again      rev     Reverted
//	soak    Soaking, probes declared       sup     Superseded
const transitions = `
                             pend acti mut sign def unst soak prov conv fail owed again rev sup
DispatchAck                  A    .    .   .    .   .    .    .    .    .    .    .     .   .
DispatchAck other target     .    .    .   .    .   .    .    .    .    .    .    .     .   .
DispatchAck other plan       .    .    .   .    .   .    .    .    .    .    .    .     .   .
ActivationStarted            .    A    .   .    .   .    .    .    .    .    .    .     .   .
ActivationCompleted          .    .    S   O    .   .    .    .    .    .    .    .     .   .
ActivationCompleted booted   .    .    S   O    S   S    .    .    .    .    .    .     .   .
ActivationCompleted other    .    .    .   .    .   .    .    .    .    .    .    .     .   .
ActivationCompleted exit 4   .    .    S   O    S   S    .    .    .    .    .    .     .   .
ActivationCompleted unit     .    .    .   .    .   .    .    .    .    .    .    .     .   .
ActivationCompleted exit 1   .    .    .   .    .   .    .    .    .    .    .    .     .   .
ActivationDeferred           .    .    D   O    .   .    .    .    .    .    .    .     .   .
ActivationFailed fetch       .    F    F   F    O   F    .    .    .    .    .    .     .   .
ActivationFailed preflight   .    F    F   F    O   F    .    .    .    .    .    .     .   .
ActivationFailed switch      .    F    O   O    O   O    .    .    .    .    .    .     .   .
ActivationFailed observe     .    F    O   O    O   O    .    .    .    .    .    .     .   .
ActivationFailed boot        .    F    O   O    O   O    .    .    .    .    .    .     .   .
ActivationFailed (no phase)  .    F    O   O    O   O    .    .    .    .    .    .     .   .
ProbeTopologyDeclared        .    .    .   .    .   .    S    S    C    .    .    .     .   .
ProbeTopologyDeclared twice  .    .    .   .    .   .    .    .    .    .    .    .     .   .
ProbeObservedFirst           .    .    .   .    .   .    S    S    C    .    .    .     .   .
ProbeFailureFirst            .    .    .   .    .   .    S    S    C    .    .    .     .   .
ProbeResult pass             .    .    .   .    .   .    S    S    C    .    .    .     .   .
ProbeResult fail             .    .    .   .    .   .    S    S    C    .    .    .     .   .
ProbeResult undeclared       .    .    .   .    .   .    .    .    .    .    .    .     .   .
ProbeResult odd status       .    .    .   .    .   .    .    .    .    .    .    .     .   .
Failed probes                .    .    .   .    .   .    O    O    .    .    .    .     .   .
Failed (no cause)            .    .    .   .    .   .    O    O    .    .    .    .     .   .
Failed confirm               .    .    .   .    .   .    O    O    .    .    .    .     .   .
Failed persist               .    .    .   .    .   .    O    O    .    .    .    .     .   .
Failed signal                .    F    O   O    O   O    O    O    .    .    .    .     .   .
Failed drift                 .    F    F   F    F   F    F    F    .    .    .    .     .   .
Failed deadline              .    F    O   O    .   .    O    O    .    .    .    .     .   .
Failed odd cause             .    .    .   .    .   .    .    .    .    .    .    .     .   .
RollbackComplete             .    .    .   .    .   .    .    .    .    .    R    R     .   .
RollbackComplete elsewhere   .    .    .   .    .   .    .    .    .    .    .    .     .   .
Converged                    .    .    .   .    .   .    .    C    .    .    .    .     .   .
Converged elsewhere          .    .    .   .    .   .    .    .    .    .    .    .     .   .
Confirmed                    .    .    .   .    .   .    S    S    .    .    .    .     .   .
Confirmed other boot         .    .    .   .    .   .    .    .    .    .    .    .     .   .
Persisted                    .    .    .   .    .   .    S    S    .    .    .    .     .   .
PersistFailed                .    .    .   .    .   .    S    S    .    .    .    .     .   .
RollbackFailed               .    .    .   .    .   .    .    .    .    .    O    O     .   .
RollbackSignal obeyed        .    F    A   A    O   O    O    O    .    .    .    .     .   .
RollbackSignal not obeyed    P    A    A   A    D   D    S    S    C    F    O    O     R   U
RebootStarted                .    .    .   .    D   D    .    .    .    .    O    O     .   .
Observed as known            P    A    A   A    D   D    S    S    C    F    O    O     R   U
Observed boot into older     P    A    A   O    D   D    A    S    C    F    O    O     R   U
Observed boot into newer     P    A    A   A    D   D    S    S    C    F    O    O     R   U
Observed other               P    A    A   A    D   D    S    S    C    F    O    O     R   U
HealthChanged                .    .    .   .    .   .    .    .    C    .    .    .     .   .
Superseded                   U    U    .   .    .   U    U    U    .    U    .    U     .   .
Notice                       P    A    A   A    D   D    S    S    C    F    O    O     R   U
(unknown to this program)    .    .    .   .    .   .    .    .    .    .    .    .     .   .
(no body)                    .    .    .   .    .   .    .    .    .    .    .    .     .   .
`

// strange is an event of a newer program.
type strange struct{}

func (strange) Kind() lifecycle.Kind { return "Strange" }

func events(h lifecycle.Host) map[string]lifecycle.Body {
	failed := func(p lifecycle.Phase, mutated bool) lifecycle.Body {
		return lifecycle.ActivationFailed{ExitCode: 2, StderrTail: "no", Phase: p, Mutated: mutated}
	}
	completed := func(exit int, units ...string) lifecycle.Body {
		return lifecycle.ActivationCompleted{ObservedCurrentClosure: newer, ExitCode: exit, NewFailedUnits: units, BootID: "boot-2"}
	}
	twice := declare
	twice.Probes = append(twice.Probes, twice.Probes...)
	return map[string]lifecycle.Body{
		"DispatchAck":                 ack,
		"DispatchAck other target":    lifecycle.DispatchAck{CurrentClosureAtDispatch: older, TargetClosure: other},
		"DispatchAck other plan":      lifecycle.DispatchAck{CurrentClosureAtDispatch: older, PlanHash: "another"},
		"ActivationStarted":           start,
		"ActivationCompleted":         complete,
		"ActivationCompleted booted":  completed(0),
		"ActivationCompleted other":   lifecycle.ActivationCompleted{ObservedCurrentClosure: other, BootID: "boot-2"},
		"ActivationCompleted exit 4":  completed(4),
		"ActivationCompleted unit":    completed(4, "web.service"),
		"ActivationCompleted exit 1":  completed(1),
		"ActivationDeferred":          deferral,
		"ActivationFailed fetch":      failed(lifecycle.PhaseFetch, false),
		"ActivationFailed preflight":  failed(lifecycle.PhasePreflight, false),
		"ActivationFailed switch":     failed(lifecycle.PhaseSwitch, true),
		"ActivationFailed observe":    failed(lifecycle.PhaseObserve, true),
		"ActivationFailed boot":       failed(lifecycle.PhaseBoot, false),
		"ActivationFailed (no phase)": failed("", false),
		"ProbeTopologyDeclared":       declare,
		"ProbeTopologyDeclared twice": twice,
		"ProbeObservedFirst":          lifecycle.ProbeObservedFirst{ProbeName: "web"},
		"ProbeFailureFirst":           lifecycle.ProbeFailureFirst{ProbeName: "web"},
		"ProbeResult pass":            pass,
		"ProbeResult fail":            fail,
		"ProbeResult undeclared":      lifecycle.ProbeResult{ProbeName: "db", Status: lifecycle.Pass},
		"ProbeResult odd status":      lifecycle.ProbeResult{ProbeName: "web", Status: "maybe"},
		"Failed probes":               gaveUp(lifecycle.CauseProbes),
		"Failed (no cause)":           gaveUp(""),
		"Failed confirm":              gaveUp(lifecycle.CauseConfirm),
		"Failed persist":              gaveUp(lifecycle.CausePersist),
		"Failed signal":               gaveUp(lifecycle.CauseSignal),
		"Failed drift":                gaveUp(lifecycle.CauseDrift),
		"Failed deadline":             gaveUp(lifecycle.CauseDeadline),
		"Failed odd cause":            gaveUp("weather"),
		"RollbackComplete":            revert,
		"RollbackComplete elsewhere":  lifecycle.RollbackComplete{RevertedToClosure: other},
		"Converged":                   converge,
		"Converged elsewhere":         lifecycle.HasConverged{CurrentClosure: other},
		"Confirmed":                   confirm,
		"Confirmed other boot":        lifecycle.Confirmed{Via: "cache", BootID: "boot-9"},
		"Persisted":                   persist,
		"PersistFailed":               lifecycle.PersistFailed{Phase: lifecycle.PhaseReadback},
		"RollbackFailed":              lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch},
		"RollbackSignal obeyed":       signal,
		"RollbackSignal not obeyed":   lifecycle.RollbackSignal{OrderID: "o1", Why: "held"},
		"RebootStarted":               lifecycle.RebootStarted{Reason: lifecycle.RebootDeferred},
		"Observed as known":           *seen(h),
		"Observed boot into older":    observed(older, "", "boot-2"),
		"Observed boot into newer":    observed(newer, "", "boot-2"),
		"Observed other":              observed(other, other, ""),
		"HealthChanged":               lifecycle.HealthChanged{Healthy: false, FailingProbes: []string{"web"}},
		"Superseded":                  supersede,
		"Notice":                      lifecycle.Notice{Code: lifecycle.NoticeOutboxFull},
		"(unknown to this program)":   strange{},
		"(no body)":                   nil,
	}
}

func situations(t *testing.T) map[string]lifecycle.Host {
	t.Helper()
	failed := lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhaseFetch}
	owed := walk(t, soaking(t), gaveUp(lifecycle.CauseProbes))
	soak := walk(t, soaking(t), declare)
	prov := walk(t, proven(t), after{300, lifecycle.Notice{}})
	return map[string]lifecycle.Host{
		"pend":  pending(t, newer),
		"acti":  activating(t),
		"mut":   switching(t),
		"sign":  walk(t, switching(t), signal),
		"def":   staged(t),
		"unst":  walk(t, staged(t), observed(older, older, "boot-1")),
		"soak":  soak,
		"prov":  prov,
		"conv":  done(t),
		"fail":  walk(t, activating(t), failed),
		"owed":  owed,
		"again": walk(t, owed, lifecycle.RollbackFailed{Phase: lifecycle.PhaseSwitch}),
		"rev":   walk(t, owed, revert),
		"sup":   walk(t, soak, supersede),
	}
}

func TestEveryEventInEverySituation(t *testing.T) {
	hosts := situations(t)
	lines := strings.Split(strings.TrimSpace(transitions), "\n")
	columns := strings.Fields(lines[0])
	if len(columns) != len(hosts) {
		t.Fatalf("the table has %d columns for %d situations", len(columns), len(hosts))
	}
	const label = 29 // bytes before the columns
	rows := map[string]bool{}
	for _, line := range lines[1:] {
		name, cells := strings.TrimSpace(line[:label]), strings.Fields(line[label:])
		rows[name] = true
		if len(cells) != len(columns) {
			t.Fatalf("%s: %d cells for %d columns", name, len(cells), len(columns))
		}
		for i, column := range columns {
			h := hosts[column]
			body, ok := events(h)[name]
			if !ok {
				t.Fatalf("no event for the row %q", name)
			}
			if got := outcome(t, h, body); got != cells[i] {
				t.Errorf("%s in situation %s: got %s, want %s", name, column, got, cells[i])
			}
		}
	}
	for name := range events(lifecycle.Host{}) {
		if !rows[name] {
			t.Errorf("the event %q has no row", name)
		}
	}
}

// outcome is the table's letter for an event, after checks that hold for all.
func outcome(t *testing.T, h lifecycle.Host, b lifecycle.Body) string {
	t.Helper()
	before := crash(t, h)
	got, err := step(h, after{1, b})
	if !reflect.DeepEqual(before, crash(t, h)) {
		t.Errorf("%T in state %s changed the host that it was given", b, h.State)
	}
	if got.Seq != h.Seq+1 {
		t.Errorf("%T in state %s: the number is %d after %d", b, h.State, got.Seq, h.Seq)
	}
	if err != nil {
		var refused *lifecycle.Refused
		if !errors.As(err, &refused) {
			t.Fatalf("%T in state %s: %v is not a refusal", b, h.State, err)
		}
		if refused.State != h.State || b != nil && refused.Kind != b.Kind() || refused.Why == "" ||
			!strings.Contains(err.Error(), string(h.State)) || !strings.Contains(err.Error(), string(refused.Kind)) {
			t.Errorf("%T in state %s: the refusal is %q", b, h.State, err)
		}
		got.Seq = h.Seq
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%T in state %s was refused and changed more than the number", b, h.State)
		}
		return "."
	}
	switch got.State {
	case lifecycle.Superseded:
		return "U"
	case lifecycle.Failed:
		if got.RollbackOwed {
			return "O"
		}
	}
	if got.State != h.State && !got.Since.After(h.Since) {
		t.Errorf("%T in state %s went to %s without saying when", b, h.State, got.State)
	}
	return string(got.State[0])
}

func TestEveryKindHasARow(t *testing.T) {
	kinds := map[lifecycle.Kind]bool{}
	for _, b := range events(lifecycle.Host{}) {
		if b != nil {
			kinds[b.Kind()] = true
		}
	}
	const published = 22
	if len(kinds)-1 != published { // strange is none
		t.Errorf("the table has %d kinds of %d", len(kinds)-1, published)
	}
}

func TestARepeatChangesNothing(t *testing.T) {
	for name, h := range situations(t) {
		for seq := int64(1); seq <= h.Seq; seq++ {
			got, err := lifecycle.Step(h, lifecycle.Event{Seq: seq, Active: h.Active + 1000, Body: observed(other, other, "boot-9")})
			if err != nil || !reflect.DeepEqual(got, h) {
				t.Errorf("%s: event %d again: error %v, or the host changed", name, seq, err)
			}
		}
	}
}

func TestAGapIsTypedAndChangesNothing(t *testing.T) {
	for name, h := range situations(t) {
		for _, seq := range []int64{-1, 0, h.Seq + 2, h.Seq + 100} {
			got, err := lifecycle.Step(h, lifecycle.Event{Seq: seq, Body: lifecycle.Notice{}})
			var gap *lifecycle.Gap
			if !errors.As(err, &gap) || gap.Have != h.Seq || gap.Got != seq || !reflect.DeepEqual(got, h) {
				t.Errorf("%s: event %d after %d: got %v", name, seq, h.Seq, err)
				continue
			}
			if want := fmt.Sprintf("event %d does not follow event %d", seq, h.Seq); err.Error() != want {
				t.Errorf("it says %q, want %q", err, want)
			}
		}
	}
}

// A refused event that did not take its number would be missed for ever.
func TestRefusedEventTakesItsNumber(t *testing.T) {
	h := activating(t)
	refused, err := lifecycle.Step(h, lifecycle.Event{Seq: 2, Body: converge})
	if err == nil {
		t.Fatal("Converged was taken in Activating")
	}
	got, err := lifecycle.Step(refused, lifecycle.Event{Seq: 3, Active: 40, Body: start})
	if err != nil || !got.Mutated || got.Seq != 3 {
		t.Errorf("the event after a refused one: %v, number %d", err, got.Seq)
	}
}

func TestNewTakesItsPlanFromTheManifest(t *testing.T) {
	policy := fleet.DefaultPolicy()
	policy.SoakSecsByWave = []int{60, 600}
	m := &fleet.Manifest{
		Channel: "stable", ChannelRef: "abc", Policy: &policy,
		HealthGate: fleet.HealthGate{SystemdFailedUnits: &fleet.FailedUnits{Max: 3}},
		HostSet: []fleet.Target{
			{Hostname: "db-01", WaveIndex: 1, TargetClosure: newer},
			{Hostname: "web-01", WaveIndex: 0, TargetClosure: other},
		},
	}
	h, err := lifecycle.New("db-01", "stable@abc", m, "plan", signedAt)
	if err != nil {
		t.Fatal(err)
	}
	if h.State != lifecycle.Pending || h.Target != newer || h.Wave != 1 || h.SoakSecs != 600 || h.Attempt != 1 ||
		h.Channel != "stable" || h.PlanHash != "plan" || !h.FirstSignedAt.Equal(signedAt) || h.Policy.MaxFailedUnits() != 3 {
		doc, _ := json.Marshal(h) // for a person to read
		t.Errorf("got %s", doc)
	}
	if _, err := lifecycle.New("db-02", "stable@abc", m, "plan", signedAt); err == nil {
		t.Error("a host that the manifest does not have was taken")
	}
	m.Policy = nil
	if _, err := lifecycle.New("db-01", "stable@abc", m, "plan", signedAt); err == nil {
		t.Error("a manifest without policy was taken")
	}
}
