package agent

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/probe"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// afterConvergence is how often a probe's change is committed once the rollout
// has converged: a flapping probe must not fill the journal for ever.
const afterConvergence = 10 * time.Minute

// probe declares and runs the probes of the live system, from its activation on
// until another one.
func (a *Agent) probe(ctx context.Context, e *entry) error {
	rollout, epoch := e.Host.Rollout, e.Host.CompletedActive
	topology := probe.Load(a.cfg.HealthChecksFile, a.probeMachine(ctx, e))
	if gate := e.Host.Policy.HealthGate.SystemdFailedUnits; gate != nil {
		topology = topology.With(a.failedUnitsProbe(ctx, rollout, gate.Max))
	}
	declared := lifecycle.ProbeTopologyDeclared{Probes: topology.Declared()}
	if !isDeclared(e.Host, declared) {
		if err := a.commit(ctx, rollout, declared); err != nil {
			return err
		}
	}
	scheduler := probe.New(topology, func(r probe.Result) {
		// An error means that the result was not committed; the probe's next one
		// will be compared with the same state.
		_ = a.reducer.submit(ctx, "result of "+r.Name, func(t *turn) error { return t.probed(rollout, epoch, r) })
	})
	a.scheduler.Store(scheduler)
	scheduler.Run(ctx)
	return ctx.Err()
}

// probeMachine is what the rollout's probes touch.
func (a *Agent) probeMachine(ctx context.Context, e *entry) probe.Machine {
	m, rollout := a.cfg.Probes, e.Host.Rollout
	if m.Unit == nil {
		m.Unit = a.unitState
	}
	m.Evidence = probe.Evidence{
		Host: a.cfg.MachineID,
		Key:  a.key.Public().(ed25519.PublicKey),
		LiveSince: func() time.Time {
			if e := a.reducer.view().find(rollout); e != nil {
				return e.soaksSince(time.Now())
			}
			return time.Time{}
		},
		Most: complianceMode(ctx, cmp.Or(e.Compliance, a.cfg.ComplianceMode), m),
	}
	return m
}

func (a *Agent) unitState(ctx context.Context, name string) (probe.UnitState, error) {
	units, ok := a.machine.(host.UnitReader)
	if !ok {
		return probe.UnitState{}, host.ErrNoSystemd
	}
	u, err := units.UnitState(ctx, name)
	return probe.UnitState(u), err
}

// The unit of a host that collects evidence.
const (
	evidenceCollector = "compliance-evidence-collector.service"
	collectorTimeout  = 5 * time.Second // to ask whether it is there
)

// complianceMode is the strictest mode that evidence probes may have. Where it is
// left to the host, evidence is looked at where somebody collects it, and decides
// nothing.
func complianceMode(ctx context.Context, mode string, m probe.Machine) lifecycle.Mode {
	switch mode {
	case fleet.ComplianceEnforce:
		return lifecycle.Enforce
	case fleet.CompliancePermissive:
		return lifecycle.Observe
	case fleet.ComplianceDisabled:
		return lifecycle.Disabled
	}
	ctx, cancel := context.WithTimeout(ctx, collectorTimeout) // no probe waits for longer
	defer cancel()
	collector, err := m.Unit(ctx, evidenceCollector)
	if errors.Is(err, host.ErrNoSystemd) || err == nil && collector.Load == "not-found" {
		return lifecycle.Disabled
	}
	return lifecycle.Observe
}

// soaksSince is since when the system that soaks is live, by the clock of now;
// zero when none does, and when nothing was switched. The time that was written
// down counts unless the clock was set back since: then the running time does,
// which no clock step changes.
func (e *entry) soaksSince(now time.Time) time.Time {
	h := e.Host
	if h.State != lifecycle.Soaking || h.Unchanged() {
		return time.Time{}
	}
	running := now.Add(-time.Duration(e.active(now)-h.CompletedActive) * time.Second).Round(0)
	if running.Before(h.CompletedAt) {
		return running
	}
	return h.CompletedAt
}

// failedUnitsProbe is the probe that the manifest's health gate asks for: no more
// units failed than before the switch, and max.
func (a *Agent) failedUnitsProbe(ctx context.Context, rollout string, tolerated int) probe.Probe {
	var before []string
	if mark, err := a.Recall(ctx, rollout, activation.StepSwitch); err == nil && mark.BootID != "" {
		before = mark.Before.Failed
	} else if units, err := a.machine.Units(ctx); err == nil {
		before = units.Failed // nothing was switched
	}
	return probe.Probe{
		Name: probe.FailedUnitsProbe, Kind: probe.KindUnit, Mode: lifecycle.Enforce,
		Interval: 30 * time.Second, Timeout: 10 * time.Second,
		Check: func(ctx context.Context) probe.Verdict {
			units, err := a.machine.Units(ctx)
			if err != nil {
				return probe.Verdict{Status: lifecycle.Fail, Reason: "the units cannot be looked at: " + err.Error()}
			}
			failed := slices.DeleteFunc(units.Failed, func(unit string) bool { return slices.Contains(before, unit) })
			if len(failed) > tolerated {
				return probe.Verdict{Status: lifecycle.Fail, Reason: fmt.Sprintf("newly failed, of %d tolerated: %s", tolerated, strings.Join(failed, " "))}
			}
			return probe.Verdict{Status: lifecycle.Pass}
		},
	}
}

// isDeclared tells whether the state has exactly these probes.
func isDeclared(h lifecycle.Host, d lifecycle.ProbeTopologyDeclared) bool {
	return h.Declared && slices.EqualFunc(h.Probes, d.Probes, func(p lifecycle.Probe, d lifecycle.ProbeDeclared) bool {
		return p.Name == d.ProbeName && p.Kind == d.Kind && p.Mode == d.Mode
	})
}

// probed takes a probe's result. Only a change is an event; results from before
// the last activation are none.
func (t *turn) probed(rollout string, epoch int64, r probe.Result) error {
	e := t.next.find(rollout)
	if e == nil || e.Host.CompletedActive != epoch {
		return nil
	}
	i := slices.IndexFunc(e.Host.Probes, func(p lifecycle.Probe) bool { return p.Name == r.Name })
	if i < 0 || e.Host.Probes[i].Status == r.Status {
		return nil
	}
	if e.Host.State == lifecycle.Converged {
		if full, err := t.outboxFull(); full || err != nil {
			return err // nothing depends on it any more
		}
		last, committed := e.Probed[r.Name]
		if now := e.active(t.now); committed && now-last < int64(afterConvergence/time.Second) {
			return nil // the next result will be another chance
		}
		t.update(rollout, func(e *entry) { e.Probed = with(e.Probed, r.Name, e.active(t.now)) })
	}
	passed, known := e.Passed[r.Name]
	firstPass := r.Status == lifecycle.Pass && (!known || passed != epoch)
	if firstPass {
		t.update(rollout, func(e *entry) { e.Passed = with(e.Passed, r.Name, epoch) })
	}
	var events []lifecycle.Body
	switch {
	case firstPass:
		events = append(events, lifecycle.ProbeObservedFirst{ProbeName: r.Name, Mode: r.Mode})
	case r.Status == lifecycle.Fail:
		events = append(events, lifecycle.ProbeFailureFirst{ProbeName: r.Name, Mode: r.Mode})
	}
	events = append(events, lifecycle.ProbeResult{
		ProbeName: r.Name, Mode: r.Mode, Status: r.Status, FailureReason: r.Reason, SubResults: r.SubResults,
	})
	for _, body := range events {
		if err := t.event(rollout, body); err != nil {
			return err
		}
	}
	return nil
}

// with is a copy of a map in which one value is set.
func with(m map[string]int64, name string, v int64) map[string]int64 {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]int64{}
	}
	m[name] = v
	return m
}
