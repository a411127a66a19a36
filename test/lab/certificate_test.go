package lab

import (
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
)

// TestCertificates is a host whose certificates live for a minute: it renews them
// without a restart, and comes back by itself after a time off in which its
// certificate expired.
func TestCertificates(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Plane: []string{"--agent-cert-validity", "60s"}})
	notAfter := func() string { return s.Run("stat", "-c", "%Y", "/var/lib/nixfleet-agent/agent-cert.pem") }
	first, pid := notAfter(), s.Run("systemctl", "show", "-P", "MainPID", agentUnitName)
	s.Eventually("the certificate to be renewed", func() bool { return notAfter() != first })
	if now := s.Run("systemctl", "show", "-P", "MainPID", agentUnitName); now != pid {
		t.Errorf("FAIL: the agent was restarted: %s, before %s", now, pid)
	}
	second := s.System("2", "")
	s.Ended("the certificate was renewed under the agent", s.Release(second), lifecycle.Converged, "", second)

	s.Run("systemctl", "stop", agentUnitName)
	select {
	case <-time.After(65 * time.Second):
	case <-s.Ctx.Done():
	}
	third := s.System("3", "")
	r := s.Release(third)
	s.Run("systemctl", "start", agentUnitName)
	s.Ended("the certificate had expired", r, lifecycle.Converged, "", third)
}
