package lab

import (
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// staged waits for a target that waits for a boot.
func (s *Solo) staged(what, rollout, runs, boots string) {
	s.T.Helper()
	s.Until(what, rollout, lifecycle.Deferred)
	s.Verdict(what+": staged", rollout, Observed{Current: runs, BootDefault: boots, Profile: boots})
}

// TestDeferredByHand is a host that people boot. Nothing of what may not be swapped
// is ever made live under it, forwards or back.
func TestDeferredByHand(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Probes: healthy})
	bus, intf := s.System("2", "", "dbus=2"), s.System("3", "", "dbus=2", "interface=2")
	notBooted := s.System("4", "", "dbus=3", "interface=2")
	takenBack := s.System("5", "", "dbus=4", "interface=2")
	sick := s.System("6", "probe", "dbus=5", "interface=2")

	const inhibited = "another D-Bus, booted into by hand"
	r := s.Release(bus)
	s.staged(inhibited, r, s.First, bus)
	s.Waits(wire.WaitingOnReboot)
	s.Restart()
	s.Ended(inhibited, r, lifecycle.Converged, "", bus)

	const interfaces = "another init interface, exit 100, booted into by hand"
	r = s.Release(intf)
	s.staged(interfaces, r, bus, intf)
	s.Restart()
	s.Ended(interfaces, r, lifecycle.Converged, "", intf)

	const old = "staged, and somebody booted the old system"
	r = s.Release(notBooted)
	s.staged(old, r, intf, notBooted)
	s.Put("/boot/default-system", intf+"\n", 0o644)
	s.Restart()
	s.Ended(old, r, lifecycle.Reverted, lifecycle.CauseSwitch, intf)

	const signalled = "staged, and the operator takes it back"
	r = s.Release(takenBack)
	s.staged(signalled, r, intf, takenBack)
	s.Check(s.Fleet.Client.Post(s.Ctx, wire.Fill(wire.PathRolloutRollback, r), wire.ActionRequest{Why: "it is bad"}, nil))
	s.Ended(signalled, r, lifecycle.Reverted, lifecycle.CauseSignal, intf)

	// The way back needs no permission to boot.
	const unhealthy = "booted into, its probe fails, only a boot goes back"
	r = s.Release(sick)
	s.staged(unhealthy, r, intf, sick)
	before := s.Boots()
	s.Restart()
	s.Ended(unhealthy, r, lifecycle.Reverted, lifecycle.CauseProbes, intf)
	if boots := s.Boots() - before; boots != 2 {
		t.Errorf("FAIL %s: %d boots", unhealthy, boots)
	}
	if live := s.MadeLive(); live != "" {
		t.Errorf("FAIL: made live in a running system: %s", live)
	}
}

// TestDeferredInWindow is a host that boots itself inside a window that is always
// open, but not over somebody who blocks it, and also without a message bus.
func TestDeferredInWindow(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Probes: healthy, Policy: map[string]any{
		"reboot":       "window",
		"rebootWindow": map[string]any{"days": []any{}, "start": "00:00", "minutes": 24 * 60, "tz": "UTC"},
	}})
	second, third := s.System("2", "", "dbus=2"), s.System("3", "", "dbus=3")

	const open = "another D-Bus, in an open reboot window, after a backup that blocks it"
	s.Run("systemd-run", "--quiet", "--unit=backup", "systemd-inhibit",
		"--what=shutdown", "--who=backup", "--why=it writes", "--mode=block", "sleep", "infinity")
	before := s.Boots()
	r := s.Release(second)
	s.Eventually(open, func() bool {
		log, err := s.Exec(s.Ctx, "journalctl", "--quiet", "-u", agentUnitName, "-o", "cat")
		return err == nil && strings.Contains(log, "blocks it: it writes")
	})
	s.staged(open, r, s.First, second)
	if boots := s.Boots() - before; boots != 0 {
		t.Errorf("FAIL: %d boots over a backup", boots)
	}
	s.Run("systemctl", "stop", "backup")
	s.Ended(open, r, lifecycle.Converged, "", second)

	const alone = "another D-Bus, in an open reboot window, while D-Bus is down"
	s.Run("systemctl", "mask", "--runtime", "--now", "dbus.socket", "dbus.service")
	s.Ended(alone, s.Release(third), lifecycle.Converged, "", third)
	if boots := s.Boots() - before; boots != 2 {
		t.Errorf("FAIL: %d boots", boots)
	}

	const closed = "another D-Bus, and the reboot window is closed"
	window := s.Fleet.doc["rolloutPolicies"].(map[string]any)["all"].(map[string]any)["rebootWindow"].(map[string]any)
	window["start"], window["minutes"] = time.Now().UTC().Add(12*time.Hour).Format("15:04"), 1
	fourth := s.System("4", "", "dbus=4")
	r = s.Release(fourth)
	s.staged(closed, r, third, fourth)
	s.Waits(wire.WaitingOnWindow)
	if boots := s.Boots() - before; boots != 2 {
		t.Errorf("FAIL: %d boots", boots)
	}
}
