package lab

import (
	"testing"

	"nixfleet/internal/lifecycle"
)

// TestUnitProbe asks a real systemd: a unit that runs, one that fails in the soak,
// and one that it does not know. Nobody collects evidence on the host, so the probe
// of it does not run.
func TestUnitProbe(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{SoakSecs: 5})
	s.Put("/etc/nixfleet/agent/health-checks.json",
		`{"app": {"kind": "unit", "unit": "app", "intervalSeconds": 1}, "up": {"kind": "unit", "unit": "multi-user.target"}, "nis2": {"kind": "evidence", "framework": "nis2"}}`, 0o644)
	const unit = "/etc/systemd/system/app.service"
	s.Put(unit, "[Service]\nExecStart=/usr/bin/sleep infinity\n", 0o644)
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "start", "app")
	second := s.System("2", "")
	r := s.Release(second)
	s.Ended("a unit that runs", r, lifecycle.Converged, "", second)
	if !s.Has(r, lifecycle.KindProbeTopologyDeclared, `"kind":"evidence","mode":"disabled"`) {
		t.Error("FAIL: a probe of evidence that nobody collects is not disabled")
	}

	r = s.Release(s.System("3", ""))
	s.Until("the soak", r, lifecycle.Soaking)
	s.Run("systemctl", "kill", "--signal=KILL", "app")
	s.Ended("a unit that fails in the soak", r, lifecycle.Reverted, lifecycle.CauseProbes, second)
	if !s.Has(r, lifecycle.KindProbeResult, "app.service is failed, its result is signal") {
		t.Error("FAIL: it does not say that the unit failed")
	}

	s.Run("rm", unit)
	s.Run("systemctl", "daemon-reload")
	r = s.Release(s.System("4", ""))
	s.Ended("a unit that nobody knows", r, lifecycle.Reverted, lifecycle.CauseProbes, second)
	if !s.Has(r, lifecycle.KindProbeResult, "app.service: systemd knows no such unit") {
		t.Error("FAIL: it does not say that there is no such unit")
	}
}
