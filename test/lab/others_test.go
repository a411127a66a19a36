package lab

import (
	"path/filepath"
	"testing"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// TestSwitchLock is a host that somebody else is switching.
func TestSwitchLock(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{})
	s.Run("mkdir", "-p", "/run/nixos")
	s.Run("systemd-run", "--quiet", "--unit=other", "flock", "/run/nixos/switch-to-configuration.lock", "sleep", "infinity")
	system := s.System("2", "")
	r := s.Release(system)
	why := s.Waits(wire.WaitingOnSwitchLock)
	s.Verdict("another switch holds the lock: "+why, r, On(s.First))
	s.Run("systemctl", "stop", "other")
	s.Ended("the lock is free again", r, lifecycle.Converged, "", system)
}

// TestRefused is a host that takes no target: because its administrator holds it,
// and because the target failed there before.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{})
	s.Run(agentProgram, "hold", "--reason", "the disk is swapped", "--for", "1h")
	second := s.System("2", "")
	r := s.Release(second)
	why := s.Waits(wire.WaitingOnHold)
	s.Verdict("its administrator holds it: "+why, r, On(s.First))
	s.Run(agentProgram, "release")
	s.Ended("its administrator has let go of it", r, lifecycle.Converged, "", second)

	failing := s.System("3", "unit")
	s.Ended("a target fails", s.Release(failing), lifecycle.Reverted, lifecycle.CauseSwitch, second)
	r = s.Release(failing)
	s.Told(rollout.GateQuarantine.Sentence())
	// An operator lets the fleet try it again; the host itself remembers.
	s.Check(s.Fleet.Client.Post(s.Ctx, wire.PathQuarantineClear,
		wire.QuarantineClearRequest{Channel: "stable", Closure: fleet.Closure(filepath.Base(failing)), Why: "the unit is mended"}, nil))
	why = s.Waits(wire.WaitingOnQuarantine)
	s.Verdict("the target failed here before: "+why, r, On(second))
	another := s.System("4", "")
	s.Ended("another closure is taken", s.Release(another), lifecycle.Converged, "", another)
}

// TestAdmin is a host that somebody else switches while it is on trial. What a
// person chose is not rolled back, and is what the next rollout would go back to.
func TestAdmin(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{SoakSecs: 15})
	second, chosen, failing := s.System("2", ""), s.System("3", ""), s.System("4", "unit")
	r := s.Release(second)
	s.Eventually("the new system to be persisted", func() bool {
		seen, err := s.Observe(s.Ctx)
		return err == nil && seen == On(second) && s.Row(r).State == lifecycle.Soaking
	})
	s.Waits(wire.WaitingOnSoak)
	s.install(s.Ctx, t, s.Cache, chosen)
	s.Ended("somebody switches the host in its soak", r, lifecycle.Failed, lifecycle.CauseDrift, chosen)
	s.MadeLive()

	r = s.Release(failing)
	s.Ended("the next rollout fails, and goes back to what that person chose", r, lifecycle.Reverted, lifecycle.CauseSwitch, chosen)

	staged := s.System("5", "", "dbus=2")
	r = s.Release(staged)
	s.staged("a target that waits for a boot", r, chosen, staged)
	s.install(s.Ctx, t, s.Cache, second)
	s.Ended("somebody switches the host while a target is staged", r, lifecycle.Failed, lifecycle.CauseDrift, second)
}
