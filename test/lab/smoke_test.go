package lab

import (
	"context"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
)

// TestSmoke is the main job on one real host: it enrols by token, converges on a
// signed system, and goes back to exactly that one when a newer system fails,
// whatever way it fails in; what a stranger signed is not run.
func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	const name = "web-01"

	l := Open(t)
	bin := l.Programs()
	cache, stranger := l.Cache("good"), l.Cache("stranger")
	v1, v2 := l.System(name, "1", ""), l.System(name, "2", "")
	failing, unhealthy, foreign := l.System(name, "3", "unit"), l.System(name, "4", "probe"), l.System(name, "5", "")
	cache.Push(v1, v2, failing, unhealthy)
	stranger.Push(foreign)

	f := l.Fleet(bin, 2, map[string]any{"healthFailureSecs": 3, "confirmWindowSecs": 20}, cache)
	files := f.Add(name)
	files["/etc/nixfleet/agent/health-checks.json"] = `{"healthy": {"kind": "exec", "mode": "enforce",
		"intervalSeconds": 1, "command": ["/usr/bin/test", "-e", "/run/current-system/healthy"]}}`

	h := l.Host(ctx, name, nil)
	h.install(ctx, t, cache, v1)
	if err := h.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	rollout := f.Release(map[string]string{name: v2})
	f.Enrol(ctx, h, files, map[string]string{
		"NIXFLEET_AGENT_CACHE_URL":     cache.URL + "," + stranger.URL,
		"NIXFLEET_AGENT_MIN_FREE_NIX":  "1MiB",
		"NIXFLEET_AGENT_MIN_FREE_BOOT": "1MiB",
	})

	for _, step := range []struct {
		what   string
		system string // "" is the release that the host enrolled with
		state  lifecycle.State
		cause  lifecycle.Cause
		expect string // the system that the host must be on afterwards
	}{
		{what: "v1 → v2 converges", state: lifecycle.Converged, expect: v2},
		{what: "v3, whose switch exits 4 with a failed unit, goes back", system: failing,
			state: lifecycle.Reverted, cause: lifecycle.CauseSwitch, expect: v2},
		{what: "v4, whose probe fails, goes back", system: unhealthy,
			state: lifecycle.Reverted, cause: lifecycle.CauseProbes, expect: v2},
		{what: "v5, signed by a stranger, is refused", system: foreign,
			state: lifecycle.Failed, cause: lifecycle.CauseFetch, expect: v2},
	} {
		begin := time.Now()
		if step.system != "" {
			rollout = f.Release(map[string]string{name: step.system})
		}
		var last string
		err := Until(ctx, step.what, func() (bool, error) {
			row, err := f.Host(ctx, rollout, name)
			if err != nil {
				last = err.Error() // the rollout opens when the control plane has seen the release
				return false, nil
			}
			last = string(row.State)
			if row.State != step.state {
				return false, nil
			}
			if row.Failure != nil && row.Failure.Cause != step.cause || row.Failure == nil && step.cause != "" {
				t.Errorf("%s: failure %+v, want cause %q", step.what, row.Failure, step.cause)
			}
			return true, nil
		})
		if err != nil {
			t.Fatalf("%s: %v (last seen: %s)", step.what, err, last)
		}
		seen, err := h.Observe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		event, err := f.LastEvent(ctx, rollout, name)
		if err != nil {
			t.Fatal(err)
		}
		verdict := "PASS"
		if seen != On(step.expect) {
			verdict = "FAIL"
			t.Errorf("%s: %v, want all %s", step.what, seen, short(step.expect))
		}
		t.Logf("%s %s: %v, last event %s, %.1f s", verdict, step.what, seen, event, time.Since(begin).Seconds())
	}
}
