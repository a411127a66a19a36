package lifecycle_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// The systems of these tests. older is prior, newer the target.
const (
	older fleet.Closure = "older"
	newer fleet.Closure = "newer"
	other fleet.Closure = "other"
)

var (
	signedAt = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	noon     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// pending is a host that enters a rollout to the target, with a soak of 300 s.
func pending(t testing.TB, target fleet.Closure, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	policy := fleet.DefaultPolicy()
	policy.SoakSecsByWave = []int{300}
	for _, change := range changes {
		change(&policy)
	}
	m := &fleet.Manifest{
		Channel: "stable", ChannelRef: "abc", Attempt: 1, Policy: &policy,
		HostSet: []fleet.Target{{Hostname: "web-01", WaveIndex: 0, TargetClosure: target}},
	}
	h, err := lifecycle.New("web-01", "stable@abc", m, "plan", signedAt)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func halting(p *fleet.Policy)          { p.OnHealthFailure = fleet.HealthHalt }
func unconfirmed(p *fleet.Policy)      { p.Confirm = fleet.ConfirmOff }
func persistConverged(p *fleet.Policy) { p.Persist = fleet.PersistConverged }
func rebootsInWindow(p *fleet.Policy) {
	p.Reboot = fleet.RebootInWindow
	p.RebootWindow = &fleet.RebootWindow{Start: "02:00"}
}
func toleratesOneUnit(p *fleet.Policy) { p.HealthGate.SystemdFailedUnits = &fleet.FailedUnits{Max: 1} }
func noSoak(p *fleet.Policy)           { p.SoakSecsByWave = nil }

// after advances the host's running time by secs at the next event.
type after struct {
	secs int64
	lifecycle.Body
}

// walk steps a host through events that must all be legal.
func walk(t testing.TB, h lifecycle.Host, bodies ...lifecycle.Body) lifecycle.Host {
	t.Helper()
	for _, b := range bodies {
		next, err := step(h, b)
		if err != nil {
			t.Fatalf("after %d events: %v", h.Seq, err)
		}
		h = next
	}
	return h
}

// step applies one event with the next number, and a wall time that follows the
// running time.
func step(h lifecycle.Host, b lifecycle.Body) (lifecycle.Host, error) {
	active := h.Active
	if later, ok := b.(after); ok {
		active += later.secs
		b = later.Body
	}
	return lifecycle.Step(h, lifecycle.Event{Seq: h.Seq + 1, Active: active, At: noon.Add(time.Duration(active) * time.Second), Body: b})
}

// The events of an undisturbed way to Converged.
var (
	ack       = lifecycle.DispatchAck{CurrentClosureAtDispatch: older, TargetClosure: newer, PlanHash: "plan"}
	start     = lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: older, BootID: "boot-1", BootDefaultWas: older}
	complete  = lifecycle.ActivationCompleted{ObservedCurrentClosure: newer, BootID: "boot-1"}
	deferral  = lifecycle.ActivationDeferred{Component: "kernel"}
	declare   = declareOf(lifecycle.Enforce)
	pass      = lifecycle.ProbeResult{ProbeName: "web", Mode: lifecycle.Enforce, Status: lifecycle.Pass}
	fail      = lifecycle.ProbeResult{ProbeName: "web", Mode: lifecycle.Enforce, Status: lifecycle.Fail, FailureReason: "500"}
	confirm   = lifecycle.Confirmed{Via: "control-plane", BootID: "boot-1"}
	persist   = lifecycle.Persisted{Generation: 42, BootDefaultVerified: true}
	converge  = lifecycle.HasConverged{CurrentClosure: newer, SoakedSecs: 300}
	supersede = lifecycle.WasSuperseded{By: "stable@def"}
	signal    = lifecycle.RollbackSignal{OrderID: "o1", Reason: "operator", Obeyed: true}
	revert    = lifecycle.RollbackComplete{RevertedToClosure: older}
)

func declareOf(m lifecycle.Mode) lifecycle.ProbeTopologyDeclared {
	return lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{{ProbeName: "web", Kind: "http", Mode: m}}}
}

func gaveUp(c lifecycle.Cause) lifecycle.GaveUp {
	return lifecycle.GaveUp{Cause: c, FailingProbes: []string{}, PolicyApplied: fleet.HealthRollbackAndHalt}
}

func observed(current, bootDefault fleet.Closure, boot string) lifecycle.Observed {
	return lifecycle.Observed{Current: current, BootDefault: bootDefault, BootID: boot}
}

// Hosts on their way, each from the one before.
func activating(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, pending(t, newer, changes...), ack)
}

func switching(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, activating(t, changes...), after{40, start})
}

func staged(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, switching(t, changes...), deferral)
}

func soaking(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, switching(t, changes...), after{20, complete})
}

// proven is a host that only the soak keeps from Converged.
func proven(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, soaking(t, changes...), declare, pass, confirm, persist)
}

func done(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, proven(t, changes...), after{300, converge})
}

// unchanged is a soaking host whose target is what ran, and boots.
func unchanged(t testing.TB, changes ...func(*fleet.Policy)) lifecycle.Host {
	t.Helper()
	return walk(t, pending(t, older, changes...),
		lifecycle.DispatchAck{CurrentClosureAtDispatch: older},
		lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodNone, PriorClosure: older, BootID: "boot-1", BootDefaultWas: older},
		lifecycle.ActivationCompleted{ObservedCurrentClosure: older, BootID: "boot-1"})
}

// seen is what a look at the machine shows that is as the host knows it.
func seen(h lifecycle.Host) *lifecycle.Observed {
	return &lifecycle.Observed{Current: h.Current, BootDefault: h.BootDefault, BootID: h.BootID}
}

// due asks what is due secs of running time after the host's last event, with a
// fresh look at a machine that is as the host knows it.
func due(h lifecycle.Host, secs int64) (lifecycle.Body, time.Duration) {
	return lifecycle.Due(h, lifecycle.Now{Active: h.Active + secs, BootID: h.BootID, Observation: seen(h)})
}

// crash is the host as the next start of the agent reads it.
func crash(t testing.TB, h lifecycle.Host) lifecycle.Host {
	t.Helper()
	doc, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var read lifecycle.Host
	if err := json.Unmarshal(doc, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

func wantRefused(t testing.TB, h lifecycle.Host, b lifecycle.Body) *lifecycle.Refused {
	t.Helper()
	_, err := step(h, b)
	var refused *lifecycle.Refused
	if !errors.As(err, &refused) {
		t.Fatalf("%s in state %s: got %v, want it refused", b.Kind(), h.State, err)
	}
	return refused
}
