package agent_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/probe"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
)

// outage is a time in which the probe fails: it begins with the first check at or
// after a time of the soak.
type outage struct{ after, lasts time.Duration }

const always = 1000 * time.Hour

// fails has the probe "app" fail in outages. A check that begins shortly before an
// outage ends gets its answer when it does: so the outage is seen to the second,
// whatever the jitter of the checks.
func (w *world) fails(outages ...outage) {
	begun := make([]time.Time, len(outages))
	var first time.Time
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probe = func() probe.Exit { // one at a time: there is one probe
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		for i, o := range outages {
			if begun[i].IsZero() && now.Sub(first) >= o.after {
				begun[i] = now
			}
			left := begun[i].Add(o.lasts).Sub(now)
			switch {
			case begun[i].IsZero() || left <= 0:
			case left < 2*time.Second:
				time.Sleep(left)
			default:
				return probe.Exit{Code: 1}
			}
		}
		return probe.Exit{}
	}
}

// TestPatternsOfFailure: which of them give up the new system, and which do not.
func TestPatternsOfFailure(t *testing.T) {
	const s, min, hour = time.Second, time.Minute, time.Hour
	offFor := func(after, off time.Duration) func(w *world, step func(time.Duration)) {
		return func(w *world, _ func(time.Duration)) {
			time.Sleep(after)
			w.stop()
			time.Sleep(off)
			w.start()
		}
	}
	stepped := func(after, by time.Duration) func(w *world, step func(time.Duration)) {
		return func(_ *world, step func(time.Duration)) {
			time.Sleep(after)
			step(by)
		}
	}
	for _, test := range []struct {
		name    string
		probe   string // fields beside kind, command and an interval of a second
		soak    time.Duration
		outages []outage
		during  func(w *world, step func(time.Duration)) // from the activation on
		want    lifecycle.State
	}{
		{"healthy", "", min, nil, nil, lifecycle.Converged},
		{"a blip", "", 5 * min, []outage{{20 * s, 5 * s}}, nil, lifecycle.Converged},
		{"two blips an hour apart", `,"intervalSeconds":10`, 2 * hour, []outage{{min, 50 * s}, {hour, 50 * s}}, nil, lifecycle.Converged},
		{"two blips with one pass between them", "", 5 * min, []outage{{10 * s, 50 * s}, {61 * s, 50 * s}}, nil, lifecycle.Converged},
		{"fails 59 s and recovers", "", 5 * min, []outage{{30 * s, 59 * s}}, nil, lifecycle.Converged},
		{"fails 61 s", "", 5 * min, []outage{{30 * s, 61 * s}}, nil, lifecycle.Reverted},
		{"fails until after the soak", "", min, []outage{{30 * s, 59 * s}}, nil, lifecycle.Converged},
		{"fails from then on", "", 5 * min, []outage{{30 * s, always}}, nil, lifecycle.Reverted},
		{"a slow start", "", min, []outage{{0, 50 * s}}, nil, lifecycle.Converged},
		{"a start that is too slow", "", min, []outage{{0, 90 * s}}, nil, lifecycle.Reverted},
		{"a slow start in its grace", `,"startupGraceSeconds":120`, min, []outage{{0, 90 * s}}, nil, lifecycle.Converged},
		{"no start in its grace", `,"startupGraceSeconds":120`, min, []outage{{0, always}}, nil, lifecycle.Reverted},
		{"grace is for the start", `,"startupGraceSeconds":240`, 5 * min, []outage{{30 * s, 90 * s}}, nil, lifecycle.Reverted},
		{"a failure that a retry hides", `,"intervalSeconds":30,"retries":5`, 5 * min, []outage{{30 * s, 3 * s}}, nil, lifecycle.Converged},
		{"fails and is only observed", `,"mode":"observe"`, min, []outage{{0, always}}, nil, lifecycle.Converged},
		{"fails and is disabled", `,"mode":"disabled"`, min, []outage{{0, always}}, nil, lifecycle.Converged},
		{"off for an hour, and well again", "", 5 * min, []outage{{0, hour + 50*s}}, offFor(40*s, hour), lifecycle.Converged},
		{"off for an hour, and no better", "", 5 * min, []outage{{0, hour + 70*s}}, offFor(40*s, hour), lifecycle.Reverted},
		// Running time stands still in a suspend: all that is seen of it is a clock that is ahead.
		{"suspended for an hour, and well again", "", 5 * min, []outage{{0, 50 * s}}, stepped(30*s, hour), lifecycle.Converged},
		{"suspended for an hour, and no better", "", 5 * min, []outage{{0, 70 * s}}, stepped(30*s, hour), lifecycle.Reverted},
		{"the clock is set forward", "", 5 * min, []outage{{0, 50 * s}}, stepped(30*s, hour), lifecycle.Converged},
		{"the clock is set back", "", 5 * min, []outage{{0, 50 * s}}, stepped(30*s, -hour), lifecycle.Converged},
		{"the clock is set back, and no better", "", 5 * min, []outage{{0, 70 * s}}, stepped(30*s, -hour), lifecycle.Reverted},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(w *world) {
				set := w.clocked(agent.ClockTrust)
				w.stop()
				w.start()
				w.write("health.json", []byte(fmt.Sprintf(`{"app": {"kind": "exec", "command": ["/app"]%s}}`, withInterval(test.probe))))
				w.policy.SoakSecsByWave = []int{int(test.soak / time.Second)}
				w.fails(test.outages...)
				r := w.release(w.v2)
				w.until(r, lifecycle.Soaking)
				if test.during != nil {
					test.during(w, func(by time.Duration) { set(by, true) })
				}
				w.endsIn(r, test.want)
			})
		})
	}
}

func withInterval(fields string) string {
	if strings.Contains(fields, "intervalSeconds") {
		return fields
	}
	return `,"intervalSeconds":1` + fields
}

// TestAProbeThatAlternates never fails for long: it decides nothing but when the
// soak ends.
func TestAProbeThatAlternates(t *testing.T) {
	story(t, func(w *world) {
		n := 0
		w.mu.Lock()
		w.probe = func() probe.Exit { n++; return probe.Exit{Code: n % 2} }
		w.mu.Unlock()
		w.policy.SoakSecsByWave = []int{300}
		w.endsIn(w.release(w.v2), lifecycle.Converged)
	})
}

// endsIn waits for the end of a rollout, and checks which it is.
func (w *world) endsIn(rollout string, want lifecycle.State) {
	w.t.Helper()
	h := w.mirror(rollout)
	for end := time.Now().Add(3 * time.Hour); !h.Terminal() && time.Now().Before(end); h = w.mirror(rollout) {
		time.Sleep(20 * time.Second) // the end of a soak is not looked for to the second
	}
	if h.State != want {
		w.t.Errorf("it is %s, want %s: %s", h.State, want, w.cp.kinds(rollout))
	}
	if want == lifecycle.Reverted && h.Failure.Cause != lifecycle.CauseProbes {
		w.t.Errorf("given up for %s", h.Failure.Cause)
	}
	if runs := map[lifecycle.State]fleet.Closure{lifecycle.Converged: h.Target, lifecycle.Reverted: w.v1}[want]; w.current() != runs {
		w.t.Errorf("it runs %s, want %s", w.current(), runs)
	}
}

// collect writes evidence of now, signed by the host's key.
func (w *world) collect(passed bool) {
	w.t.Helper()
	doc, err := json.Marshal(map[string]any{
		"schemaVersion": 1, "hostname": host1, "collectedAt": time.Now().UTC().Format(time.RFC3339),
		"controls": []any{map[string]any{"controlId": "access-control", "passed": passed, "frameworkArticles": map[string]any{"nis2": []string{}}}},
	})
	w.must(err)
	canonical, err := trust.CanonicalAny(doc)
	w.must(err)
	w.write("evidence.json", doc)
	w.write("evidence.json.sig", ed25519.Sign(w.hostKey, canonical))
}

// TestComplianceMode: the manifest's, else the flag's, else whether the host
// collects evidence.
func TestComplianceMode(t *testing.T) {
	for _, test := range []struct {
		name            string
		manifest, flag  string
		collector       string // what systemd says about the collector; "" without systemd
		passes, collect bool   // what the evidence says, and that it is collected in the soak
		declared        lifecycle.Mode
		want            lifecycle.State
		reason          string // of the probe's failure
	}{
		{"enforced", "enforce", "auto", "loaded", true, true, lifecycle.Enforce, lifecycle.Converged, ""},
		{"enforced without a collector", "enforce", "auto", "", true, true, lifecycle.Enforce, lifecycle.Converged, ""},
		{"enforced and not met", "enforce", "auto", "loaded", false, true, lifecycle.Enforce, lifecycle.Reverted, "1 of 1 enforced controls fail: access-control"},
		{"enforced and of the system before", "enforce", "auto", "loaded", true, false, lifecycle.Enforce, lifecycle.Reverted, "before this system went live at"},
		{"permissive", "permissive", "enforce", "loaded", false, true, lifecycle.Observe, lifecycle.Converged, "1 of 1 enforced controls fail: access-control"},
		{"disabled", "disabled", "enforce", "loaded", false, true, lifecycle.Disabled, lifecycle.Converged, ""},
		{"the flag enforces", "", "enforce", "loaded", false, true, lifecycle.Enforce, lifecycle.Reverted, "1 of 1 enforced controls fail: access-control"},
		{"the flag is permissive", "", "permissive", "not-found", false, true, lifecycle.Observe, lifecycle.Converged, "1 of 1 enforced controls fail: access-control"},
		{"the flag disables", "", "disabled", "loaded", false, true, lifecycle.Disabled, lifecycle.Converged, ""},
		{"auto with a collector", "", "auto", "loaded", false, true, lifecycle.Observe, lifecycle.Converged, "1 of 1 enforced controls fail: access-control"},
		{"auto with one that is masked", "", "auto", "masked", false, true, lifecycle.Observe, lifecycle.Converged, "1 of 1 enforced controls fail: access-control"},
		{"auto without a collector", "", "auto", "not-found", false, true, lifecycle.Disabled, lifecycle.Converged, ""},
		{"auto without systemd", "", "auto", "", false, true, lifecycle.Disabled, lifecycle.Converged, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(w *world) {
				w.stop()
				w.config = func(c *agent.Config) {
					c.ComplianceMode = test.flag
					if test.collector != "" {
						c.Probes.Unit = func(_ context.Context, name string) (probe.UnitState, error) {
							if name != "compliance-evidence-collector.service" {
								t.Errorf("%s was asked for", name)
							}
							return probe.UnitState{Load: test.collector}, nil
						}
					}
				}
				w.start()
				w.write("health.json", []byte(fmt.Sprintf(`{"nis2": {"kind": "evidence", "framework": "nis2", "evidencePath": %q, "intervalSeconds": 10, "startupGraceSeconds": 30}}`, w.path("evidence.json"))))
				w.collect(test.passes)
				r := w.release(w.v2, func(m *fleet.Manifest) { m.ComplianceMode = test.manifest })
				if h := w.until(r, lifecycle.Soaking); test.collect {
					time.Sleep(20*time.Second - time.Since(h.CompletedAt)) // in the probe's grace
					w.collect(test.passes)
				}
				w.endsIn(r, test.want)
				reason := ""
				for _, e := range w.cp.decoded(r) {
					switch b := e.Body.(type) {
					case lifecycle.ProbeTopologyDeclared:
						if len(b.Probes) != 1 || b.Probes[0].Mode != test.declared {
							t.Errorf("declared: %+v", b.Probes)
						}
					case lifecycle.ProbeResult:
						if b.Status == lifecycle.Fail {
							reason = b.FailureReason
						}
					}
				}
				if !strings.Contains(reason, test.reason) || test.reason == "" && reason != "" {
					t.Errorf("failed for %q, want %q", reason, test.reason)
				}
			})
		})
	}
}

// A host that runs the target already needs no new evidence: nothing has changed.
func TestEvidenceOfAHostThatRunsTheTarget(t *testing.T) {
	story(t, func(w *world) {
		w.write("health.json", []byte(fmt.Sprintf(`{"nis2": {"kind": "evidence", "framework": "nis2", "evidencePath": %q}}`, w.path("evidence.json"))))
		w.collect(true)
		time.Sleep(time.Hour)
		w.endsIn(w.release(w.v1, func(m *fleet.Manifest) { m.ComplianceMode = "enforce" }), lifecycle.Converged)
	})
}
