package lab

import (
	"testing"

	"nixfleet/internal/lifecycle"
)

// healthy is the probe that systems with the fault probe fail.
const healthy = `{"healthy": {"kind": "exec", "mode": "enforce",
	"intervalSeconds": 1, "command": ["/usr/bin/test", "-e", "/run/current-system/healthy"]}}`

// TestSmoke is the main job on one real host: it enrols by token, converges on a
// signed system, and goes back to exactly that one when a newer system fails,
// whatever way it fails in; what a stranger signed is not run.
func TestSmoke(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Probes: healthy})
	second := s.System("2", "")
	s.Ended("v1 → v2 converges", s.Release(second), lifecycle.Converged, "", second)

	failing := s.System("3", "unit")
	s.Ended("v3, whose switch exits 4 with a failed unit, goes back", s.Release(failing),
		lifecycle.Reverted, lifecycle.CauseSwitch, second)

	sick := s.System("4", "probe")
	s.Ended("v4, whose probe fails, goes back", s.Release(sick), lifecycle.Reverted, lifecycle.CauseProbes, second)

	another := s.SystemWith(s.AnotherAgent(), "5", "")
	rollout := s.Release(another)
	s.Ended("v5, whose switch replaces the agent, converges", rollout, lifecycle.Converged, "", another)
	if s.GuardActed(rollout) {
		t.Error("FAIL: the guard acted")
	}

	back := s.SystemWith(s.AnotherAgent(), "6", "unit")
	s.Ended("v6, whose switch replaces the agent again and fails, goes back", s.Release(back),
		lifecycle.Reverted, lifecycle.CauseSwitch, another)
}
