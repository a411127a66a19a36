package lab

import (
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// TestGarbageCollection collects garbage at the worst moments, with all older
// generations. What the host goes to and what it would go back to stay.
func TestGarbageCollection(t *testing.T) {
	t.Parallel()
	const sound = `{"sound": {"kind": "exec", "mode": "enforce",
		"intervalSeconds": 1, "command": ["/usr/bin/test", "!", "-e", "/run/lab-sick"]}}`
	s := NewSolo(t, SoloConfig{Probes: sound, SoakSecs: 6, Crashpoints: true})
	collect := func() { s.Run("nix-collect-garbage", "--delete-old") }

	second := s.System("2", "")
	s.arm("stop:activation/fetched")
	r := s.Release(second)
	s.reached("stop", "activation/fetched")
	collect()
	s.Signal("CONT")
	s.Ended("garbage is collected between fetch and switch", r, lifecycle.Converged, "", second)

	third := s.System("3", "slow")
	s.Held()
	r = s.unacknowledged(second, third)
	s.Switching(third)
	collect()
	s.LetGo()
	s.Eventually("v3 to be the boot default, and still on trial", func() bool {
		seen, err := s.Observe(s.Ctx)
		return err == nil && seen == On(third) && s.Row(r).State == lifecycle.Soaking
	})
	collect() // second has no generation now, and is not what was booted
	s.Run("touch", "/run/lab-sick")
	s.Eventually("the probe to fail", func() bool { return s.Row(r).State != lifecycle.Soaking })
	s.Run("rm", "/run/lab-sick")
	s.Ended("garbage is collected in the switch and in the soak, and the way back is there", r, lifecycle.Reverted, lifecycle.CauseProbes, second)
}

// unacknowledged releases a system for a host in a disruption budget, whose control
// plane goes away before it has stored the acknowledgement, and waits until it is
// back.
func (s *Solo) unacknowledged(runs, system string) (rollout string) {
	s.T.Helper()
	s.Fleet.doc["disruptionBudgets"] = []any{map[string]any{"selector": map[string]any{"all": true}, "maxInFlight": 1}}
	s.arm("stop:agent/accepted")
	rollout = s.Release(system)
	s.reached("stop", "agent/accepted")
	s.Fleet.StopControlPlane()
	s.Signal("CONT")
	s.WaitsUnheard(wire.WaitingOnAcknowledgement, "the control plane that could be asked would have stored it")
	if seen, err := s.Observe(s.Ctx); err != nil || seen != On(runs) {
		s.T.Errorf("FAIL: the acknowledgement is not stored, and it is on %v, %v", seen, err)
	}
	s.Fleet.StartControlPlane()
	return rollout
}

// TestFullDisks fills the store and the boot file system of a host.
func TestFullDisks(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Environment: map[string]string{
		"NIXFLEET_AGENT_MIN_FREE_NIX": "64MiB", "NIXFLEET_AGENT_MIN_FREE_BOOT": "512KiB",
	}})
	fill := func(leave string) {
		s.Run("sh", "-c", `free=$(($(stat -f -c '%a * %S' /nix/store) - `+leave+`)); fallocate -l $free /var/lab-ballast`)
	}
	spare := func() { s.Run("sh", "-c", "rm -f /var/lab-ballast*; sync") }

	second := s.System("2", "")
	fill("48 * 1048576")
	r := s.Release(second)
	why := s.Waits(wire.WaitingOnDiskNix)
	s.Verdict("there is little room in the store: "+why, r, On(s.First))
	spare()
	s.Ended("there is room again", r, lifecycle.Converged, "", second)

	third := s.System("3", "")
	fill("4 * 1048576")
	s.Run("sh", "-c", "dd if=/dev/zero of=/var/lab-ballast-2 bs=4k 2>/dev/null; sync; true")
	r = s.Release(third)
	// Nothing can be written down now, and so nothing is accepted.
	select {
	case <-time.After(5 * time.Second):
	case <-s.Ctx.Done():
	}
	if seen, err := s.Observe(s.Ctx); err != nil || seen != On(second) {
		t.Errorf("FAIL: on a full disk: %v, %v", seen, err)
	}
	spare()
	s.Ended("the disk was full to the last byte", r, lifecycle.Converged, "", third)
	s.Kinds(r)

	s.Run("sh", "-c", `cp /boot/default-system /run/default-system; mount -t tmpfs -o size=2m tmpfs /boot; cp /run/default-system /boot/`)
	s.Run("fallocate", "-l", "1900k", "/boot/ballast")
	fourth := s.System("4", "slow")
	s.Held()
	r = s.Release(fourth)
	why = s.Waits(wire.WaitingOnDiskBoot)
	s.Verdict("there is little room for boot files: "+why, r, On(third))
	s.Run("rm", "/boot/ballast")
	s.Switching(fourth)
	s.Run("sh", "-c", "dd if=/dev/zero of=/boot/ballast bs=4k 2>/dev/null; true")
	s.LetGo()
	s.Eventually("the boot loader not to be written", func() bool { return s.Has(r, lifecycle.KindPersistFailed, "could not be written") })
	s.Verdict("the boot file system is full", r, Observed{Current: fourth, BootDefault: third, Profile: fourth})
	s.Waits(wire.WaitingOnPersist)
	s.Run("rm", "/boot/ballast")
	s.Ended("the boot file system has room again", r, lifecycle.Converged, "", fourth)
}
