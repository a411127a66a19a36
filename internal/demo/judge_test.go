package demo

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"nixfleet/internal/evidence"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// converged are findings about a rollout to two hosts, one after the other, in
// which everything is as it should be, agents and control plane having been
// killed.
func converged(t *testing.T) *findings {
	t.Helper()
	f := &findings{
		hosts:        []string{"host-1", "host-2"},
		rollout:      wire.RolloutLifecycle{RolloutView: wire.RolloutView{State: "Terminal", Waves: 2, OpenedAt: start, Since: start.Add(time.Minute)}},
		rows:         map[string]wire.RolloutHost{},
		views:        map[string]wire.HostView{},
		evidence:     map[string][]wire.Envelope{},
		machines:     map[string]machineState{},
		certificates: []wire.CertificateView{{Name: "demo", Role: "operator"}},
		revivals:     []time.Time{start.Add(20 * time.Second)},
	}
	for i, host := range f.hosts {
		target := fleet.Closure("target-of-" + host)
		f.manifest.HostSet = append(f.manifest.HostSet, fleet.Target{Hostname: host, WaveIndex: i, TargetClosure: target})
		f.rows[host] = wire.RolloutHost{Hostname: host, Wave: i, State: lifecycle.Converged}
		f.views[host] = wire.HostView{Hostname: host, Current: target}
		f.certificates = append(f.certificates, wire.CertificateView{Name: host, Role: "agent", Requester: "token"})
		began := start.Add(time.Duration(i) * 30 * time.Second)
		for seq, e := range []struct {
			after, active int64
			body          lifecycle.Body
		}{
			{0, 0, lifecycle.DispatchAck{}},
			{1, 1, lifecycle.ActivationStarted{PriorClosure: "prior"}},
			{5, 5, lifecycle.ActivationCompleted{ObservedCurrentClosure: target}},
			{9, 9, lifecycle.HasConverged{CurrentClosure: target}},
		} {
			event := lifecycle.Event{Seq: int64(seq + 1), Active: e.active, At: began.Add(time.Duration(e.after) * time.Second), Body: e.body}
			f.store(t, host, event)
		}
		f.machines[host] = machineState{
			current: target, bootDefault: target, journal: f.evidence[host],
			revivals: []time.Time{began.Add(3 * time.Second)},
			switches: []switchLine{{true, "test", target}, {false, "test", target}, {true, "boot", target}, {false, "boot", target}},
		}
	}
	return f
}

// store adds an event to what the control plane has.
func (f *findings) store(t *testing.T, host string, e lifecycle.Event) {
	t.Helper()
	raw, err := wire.EncodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	f.events = append(f.events, storedEvent{wire.EventView{LogID: int64(len(f.events) + 1), Hostname: host, Seq: e.Seq, Event: raw}, e})
	f.evidence[host] = append(f.evidence[host], wire.Envelope{Hostname: host, Event: raw, Signature: string(raw)})
}

// reverted are findings about a bad release that only its canary saw.
func reverted(t *testing.T) *findings {
	t.Helper()
	f := converged(t)
	f.rollout.State = "Reverted"
	f.events, f.evidence = nil, map[string][]wire.Envelope{}
	f.rows["host-1"] = wire.RolloutHost{State: lifecycle.Reverted}
	f.rows["host-2"] = wire.RolloutHost{State: lifecycle.Pending}
	for i, body := range []lifecycle.Body{
		lifecycle.DispatchAck{}, lifecycle.ActivationStarted{PriorClosure: "prior-1"}, lifecycle.ActivationCompleted{},
		lifecycle.GaveUp{Cause: lifecycle.CauseProbes, SustainedDurationSecs: 3}, lifecycle.RollbackComplete{RevertedToClosure: "prior-1"},
	} {
		f.store(t, "host-1", lifecycle.Event{Seq: int64(i + 1), At: start, Body: body})
	}
	f.machines["host-1"] = machineState{current: "prior-1", bootDefault: "prior-1"}
	f.machines["host-2"] = machineState{current: "prior-2", bootDefault: "prior-2"}
	return f
}

// isolated are findings about a release that cut its first two hosts off, of which
// the second had an agent that hung.
func isolated(t *testing.T) *findings {
	t.Helper()
	f := converged(t)
	f.hosts = append(f.hosts, "host-3")
	f.manifest.HostSet = append(f.manifest.HostSet, fleet.Target{Hostname: "host-3", WaveIndex: 1, TargetClosure: "target-of-host-3"})
	f.manifest.HostSet[1].WaveIndex = 0
	f.rollout.State = "Reverted"
	f.events, f.evidence = nil, map[string][]wire.Envelope{}
	for i, host := range []string{"host-1", "host-2"} {
		prior := fleet.Closure("prior-of-" + host)
		bodies := []lifecycle.Body{
			lifecycle.DispatchAck{}, lifecycle.ActivationStarted{PriorClosure: prior},
			lifecycle.ActivationCompleted{ObservedCurrentClosure: f.manifest.HostSet[i].TargetClosure},
			lifecycle.GaveUp{Cause: lifecycle.CauseConfirm, SustainedDurationSecs: 8}, lifecycle.RollbackComplete{RevertedToClosure: prior},
		}
		if host == "host-2" {
			bodies = slices.Insert(bodies, 3, lifecycle.Body(lifecycle.Notice{Code: lifecycle.NoticeGuardActed}))
		}
		for i, body := range bodies {
			f.store(t, host, lifecycle.Event{Seq: int64(i + 1), At: start.Add(time.Duration(i) * time.Second), Body: body})
			f.events[len(f.events)-1].ReceivedAt = start.Add(10 * time.Second)
		}
		f.rows[host] = wire.RolloutHost{State: lifecycle.Reverted}
		f.machines[host] = machineState{current: prior, bootDefault: prior, switches: []switchLine{
			{true, "test", f.manifest.HostSet[i].TargetClosure}, {true, "boot", prior}, {true, "test", prior},
		}}
	}
	f.machines["host-3"] = machineState{current: "prior-3", bootDefault: "prior-3"}
	return f
}

// attacked are findings about a release after all attacks were refused.
func attacked(t *testing.T) *findings {
	t.Helper()
	f := converged(t)
	f.tampered = "demo@ab"
	f.refusals = []refusal{
		{start, "/release rollouts/demo@ab.json", "bad-signature"},
		{start, "/release fleet.resolved.json", "older-than-accepted"},
	}
	other := func(whose fleet.Closure) *findings {
		f := converged(t)
		f.events = nil
		for i, target := range f.manifest.HostSet {
			f.manifest.HostSet[i].TargetClosure = whose + target.TargetClosure
		}
		return f
	}
	f.forged, f.smuggled = other("forged-"), other("smuggled-")
	f.forged.rollout.OpenedAt = start.Add(time.Second)
	for _, host := range f.hosts {
		f.forged.rows[host] = wire.RolloutHost{Reject: &wire.RejectView{Reason: "bad-signature"}}
	}
	f.smuggled.store(t, "host-1", lifecycle.Event{Seq: 1, Body: lifecycle.DispatchAck{}})
	f.smuggled.store(t, "host-1", lifecycle.Event{Seq: 2, Body: lifecycle.ActivationFailed{Phase: lifecycle.PhaseFetch, BadSignature: true}})
	return f
}

// overtaken are the same, but that the next release came to the second host while
// it had not fetched the smuggled system yet.
func overtaken(t *testing.T) *findings {
	f := attacked(t)
	f.smuggled.store(t, "host-2", lifecycle.Event{Seq: 1, Body: lifecycle.DispatchAck{}})
	f.smuggled.store(t, "host-2", lifecycle.Event{Seq: 2, Body: lifecycle.WasSuperseded{}})
	return f
}

// examined are findings about evidence in which everything is as it should be.
func examined(t *testing.T) *findings {
	t.Helper()
	f := converged(t)
	f.audit, f.audited = audit{OK: true}, map[string][]string{}
	for _, host := range f.hosts {
		f.audit.Hosts = append(f.audit.Hosts, hostAudit{Hostname: host, OK: true, Records: 4, Heads: 1})
		f.flipped.Hosts = append(f.flipped.Hosts, hostAudit{Hostname: host, Error: "changed"})
		for _, e := range f.machines[host].journal {
			record, err := evidence.Of(e).Canonical()
			if err != nil {
				t.Fatal(err)
			}
			f.audited[host] = append(f.audited[host], string(record))
		}
	}
	return f
}

// Whatever is not as it should be breaks its act.
func TestVerdicts(t *testing.T) {
	edit := func(f *findings, host string, change func(*machineState)) {
		m := f.machines[host]
		change(&m)
		f.machines[host] = m
	}
	for _, c := range []struct {
		name   string
		holds  func(*findings) verdict
		of     func(*testing.T) *findings
		change func(f *findings) // nil: it holds
	}{
		{"all is well", everybodyConverged, converged, nil},
		{"no certificate", everybodyConverged, converged, func(f *findings) { f.certificates = f.certificates[:2] }},
		{"a certificate without a token", everybodyConverged, converged, func(f *findings) { f.certificates[1].Requester = "renewal" }},
		{"the rollout goes on", everybodyConverged, converged, func(f *findings) { f.rollout.State = "Active" }},
		{"a host is not converged", everybodyConverged, converged, func(f *findings) { f.rows["host-2"] = wire.RolloutHost{State: lifecycle.Soaking} }},
		{"a host reports something else", everybodyConverged, converged, func(f *findings) { f.views["host-2"] = wire.HostView{Current: "else"} }},
		{"a host runs something else", everybodyConverged, converged, func(f *findings) { edit(f, "host-2", func(m *machineState) { m.current = "else" }) }},
		{"a host boots something else", everybodyConverged, converged, func(f *findings) { edit(f, "host-2", func(m *machineState) { m.bootDefault = "else" }) }},
		{"a host is not in it", everybodyConverged, converged, func(f *findings) { f.manifest.HostSet = f.manifest.HostSet[:1] }},

		{"all is well", wavesSoaked, converged, nil},
		{"a short soak", wavesSoaked, converged, func(f *findings) { f.events[3].Active = 7 }},
		{"waves together", wavesSoaked, converged, func(f *findings) { f.events[4].LogID = 2 }},
		{"one wave", wavesSoaked, converged, func(f *findings) {
			f.rollout.Waves = 1
			f.manifest.HostSet[1].WaveIndex = 0
		}},
		{"nothing reported", wavesSoaked, converged, func(f *findings) { f.events = f.events[:4] }},

		{"all is well", canaryReverted, reverted, nil},
		{"not halted", canaryReverted, reverted, func(f *findings) { f.rollout.State = "Active" }},
		{"not back", canaryReverted, reverted, func(f *findings) { f.rows["host-1"] = wire.RolloutHost{State: lifecycle.Failed} }},
		{"back for another reason", canaryReverted, reverted, func(f *findings) { f.events[3].Body = lifecycle.GaveUp{Cause: lifecycle.CauseConfirm} }},
		{"back because it was asked", canaryReverted, reverted, func(f *findings) { f.events[2].Body = lifecycle.RollbackSignal{} }},
		{"back elsewhere", canaryReverted, reverted, func(f *findings) { f.events[4].Body = lifecycle.RollbackComplete{RevertedToClosure: "else"} }},
		{"back in words only", canaryReverted, reverted, func(f *findings) { edit(f, "host-1", func(m *machineState) { m.current = "target-of-host-1" }) }},
		{"back until the next boot", canaryReverted, reverted, func(f *findings) { edit(f, "host-1", func(m *machineState) { m.bootDefault = "target-of-host-1" }) }},
		{"another host has heard of it", canaryReverted, reverted, func(f *findings) { f.events[0].Hostname = "host-2" }},
		{"another host tried it", canaryReverted, reverted, func(f *findings) {
			edit(f, "host-2", func(m *machineState) { m.switches = []switchLine{{true, "test", "target-of-host-2"}} })
		}},

		{"all is well", cutOffReverted, isolated, nil},
		{"not halted", cutOffReverted, isolated, func(f *findings) { f.rollout.State = "Terminal" }},
		{"not back", cutOffReverted, isolated, func(f *findings) { f.rows["host-2"] = wire.RolloutHost{State: lifecycle.Failed} }},
		{"back for another reason", cutOffReverted, isolated, func(f *findings) { f.events[3].Body = lifecycle.GaveUp{Cause: lifecycle.CauseProbes} }},
		{"back because it was asked", cutOffReverted, isolated, func(f *findings) { f.events[0].Body = lifecycle.RollbackSignal{} }},
		{"back elsewhere", cutOffReverted, isolated, func(f *findings) { f.events[4].Body = lifecycle.RollbackComplete{RevertedToClosure: "else"} }},
		{"back in words only", cutOffReverted, isolated, func(f *findings) { edit(f, "host-2", func(m *machineState) { m.current = "target-of-host-2" }) }},
		{"back until the next boot", cutOffReverted, isolated, func(f *findings) { edit(f, "host-2", func(m *machineState) { m.bootDefault = "target-of-host-2" }) }},
		{"it never ran", cutOffReverted, isolated, func(f *findings) { f.events[2].Body = lifecycle.Observed{} }},
		{"it was confirmed", cutOffReverted, isolated, func(f *findings) { f.store(t, "host-1", lifecycle.Event{Body: lifecycle.Confirmed{}}) }},
		{"it told what it ran", cutOffReverted, isolated, func(f *findings) { f.events[2].ReceivedAt = start.Add(3 * time.Second) }},
		{"it would have booted it", cutOffReverted, isolated, func(f *findings) {
			edit(f, "host-1", func(m *machineState) { m.switches = append(m.switches, switchLine{true, "boot", "target-of-host-1"}) })
		}},
		{"an impatient agent", cutOffReverted, isolated, func(f *findings) {
			f.events[3].Body = lifecycle.GaveUp{Cause: lifecycle.CauseConfirm, SustainedDurationSecs: 7}
		}},
		{"no agent gave up", cutOffReverted, isolated, func(f *findings) { f.events[0].Body = lifecycle.Notice{Code: lifecycle.NoticeGuardActed} }},
		{"no guard acted", cutOffReverted, isolated, func(f *findings) { f.events[8].Body = lifecycle.Observed{} }},
		{"another host tried it", cutOffReverted, isolated, func(f *findings) {
			edit(f, "host-3", func(m *machineState) { m.switches = []switchLine{{true, "test", "target-of-host-3"}} })
		}},

		{"all is well", survivedKills, converged, nil},
		{"no agent was killed", survivedKills, converged, func(f *findings) {
			for _, host := range f.hosts {
				edit(f, host, func(m *machineState) { m.revivals = nil })
			}
		}},
		{"only the canary's agent was killed", survivedKills, converged, func(f *findings) {
			edit(f, "host-2", func(m *machineState) { m.revivals = nil })
		}},
		{"an agent was killed after its switch", survivedKills, converged, func(f *findings) {
			edit(f, "host-2", func(m *machineState) { m.revivals[0] = start.Add(37 * time.Second) })
		}},
		{"the control plane was not killed", survivedKills, converged, func(f *findings) { f.revivals = nil }},
		{"the control plane was killed too early", survivedKills, converged, func(f *findings) { f.revivals[0] = start.Add(5 * time.Second) }},
		{"the control plane was killed too late", survivedKills, converged, func(f *findings) { f.revivals[0] = start.Add(2 * time.Minute) }},
		{"a switch was run twice", survivedKills, converged, func(f *findings) {
			edit(f, "host-1", func(m *machineState) {
				m.switches = append(m.switches, switchLine{true, "test", "target-of-host-1"})
			})
		}},
		{"an event is missing", survivedKills, converged, func(f *findings) { f.evidence["host-1"] = f.evidence["host-1"][:3] }},
		{"an event is stored twice", survivedKills, converged, func(f *findings) {
			f.evidence["host-1"] = append(f.evidence["host-1"], f.evidence["host-1"][3])
		}},
		{"events in another order", survivedKills, converged, func(f *findings) {
			e := f.evidence["host-1"]
			f.evidence["host-1"] = []wire.Envelope{e[1], e[0], e[2], e[3]}
		}},
		{"another event than was committed", survivedKills, converged, func(f *findings) {
			e := append([]wire.Envelope{}, f.evidence["host-1"]...)
			e[2].Event = json.RawMessage(`{"kind":"Observed","seq":3,"active":5,"at":"2026-11-23T10:00:00Z"}`)
			f.evidence["host-1"] = e
		}},
		{"another signature", survivedKills, converged, func(f *findings) {
			e := append([]wire.Envelope{}, f.evidence["host-1"]...)
			e[2].Signature = "else"
			f.evidence["host-1"] = e
		}},

		{"all is well", attacksRefused, attacked, nil},
		{"all is well, and one host had not begun to fetch", attacksRefused, overtaken, nil},
		{"a host took the smuggled system until it was overtaken", attacksRefused, overtaken, func(f *findings) {
			f.smuggled.store(t, "host-2", lifecycle.Event{Seq: 3, Body: lifecycle.ActivationStarted{}})
		}},
		{"nobody forged", attacksRefused, attacked, func(f *findings) { f.forged = nil }},
		{"nobody smuggled", attacksRefused, attacked, func(f *findings) { f.smuggled = nil }},
		{"the next release is stuck", attacksRefused, attacked, func(f *findings) { f.rollout.State = "Active" }},
		{"a changed manifest was taken", attacksRefused, attacked, func(f *findings) { f.refusals = f.refusals[1:] }},
		{"an old document was taken", attacksRefused, attacked, func(f *findings) { f.refusals = f.refusals[:1] }},
		{"it was refused for another reason", attacksRefused, attacked, func(f *findings) { f.refusals[0].reason = "malformed" }},
		{"another manifest was refused", attacksRefused, attacked, func(f *findings) { f.tampered = "demo@cd" }},
		{"it was refused when other keys counted", attacksRefused, attacked, func(f *findings) { f.refusals[1].at = start.Add(time.Minute) }},
		{"a host said nothing to the forged release", attacksRefused, attacked, func(f *findings) { f.forged.rows["host-2"] = wire.RolloutHost{} }},
		{"a host refused it for another reason", attacksRefused, attacked, func(f *findings) {
			f.forged.rows["host-2"] = wire.RolloutHost{Reject: &wire.RejectView{Reason: "stale"}}
		}},
		{"a host switched to the forged release", attacksRefused, attacked, func(f *findings) {
			edit(f, "host-2", func(m *machineState) {
				m.switches = append(m.switches, switchLine{true, "test", "forged-target-of-host-2"})
			})
		}},
		{"a host switched to the smuggled system", attacksRefused, attacked, func(f *findings) {
			edit(f, "host-2", func(m *machineState) {
				m.switches = append(m.switches, switchLine{true, "test", "smuggled-target-of-host-2"})
			})
		}},
		{"no host saw the smuggled system", attacksRefused, attacked, func(f *findings) { f.smuggled.events = nil }},
		{"a host took the smuggled system", attacksRefused, attacked, func(f *findings) {
			f.smuggled.events[1].Body = lifecycle.ActivationStarted{}
		}},
		{"a host failed with it otherwise", attacksRefused, attacked, func(f *findings) {
			f.smuggled.events[1].Body = lifecycle.ActivationFailed{Phase: lifecycle.PhaseFetch}
		}},

		{"all is well", audited, examined, nil},
		{"a chain does not verify", audited, examined, func(f *findings) { f.audit.Hosts[1].OK = false }},
		{"a host was left out", audited, examined, func(f *findings) { f.audit.Hosts = f.audit.Hosts[:1] }},
		{"no head is signed", audited, examined, func(f *findings) { f.audit.Hosts[1].Heads = 0 }},
		{"a record is withheld", audited, examined, func(f *findings) { f.audited["host-2"] = f.audited["host-2"][:3] }},
		{"a flipped bit is not seen", audited, examined, func(f *findings) { f.flipped.Hosts[1] = hostAudit{Hostname: "host-2", OK: true} }},
		{"another verdict on the whole", audited, examined, func(f *findings) { f.flipped.OK = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.of(t)
			if c.change != nil {
				c.change(f)
			}
			if v := c.holds(f); v.ok != (c.change == nil) || v.detail == "" {
				t.Errorf("%+v", v)
			}
		})
	}
}
