package lab

import (
	"path/filepath"
	"testing"

	"nixfleet/internal/lifecycle"
)

// TestNewer releases something newer in every state of an older rollout. What is
// gone back to is always what ran before the older one.
func TestNewer(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{First: []string{"fault=slow"}, SoakSecs: 8})
	prior := func(rollout, want string) {
		t.Helper()
		if !s.Has(rollout, lifecycle.KindActivationStarted, `"priorClosure":"`+filepath.Base(want)+`"`) {
			t.Errorf("FAIL: the prior of %s is not %s", rollout, short(want))
		}
	}

	switching, soaking, failing := s.System("2", "slow"), s.System("3", ""), s.System("4", "unit")
	s.Held()
	r2 := s.Release(switching)
	s.Switching(switching)
	r3 := s.Release(soaking)
	s.Eventually("the newer release to be accepted while the older one switches", func() bool { return s.Row(r3).State == lifecycle.Activating })
	s.Verdict("a newer release while a switch is under way", r2, Observed{Current: switching, BootDefault: s.First, Profile: s.First})
	s.LetGo()
	s.Until("the newer one to take over after the switch", r2, lifecycle.Superseded)
	s.Until("the newer one to soak", r3, lifecycle.Soaking)
	prior(r3, s.First)
	s.Held()
	r4 := s.Release(failing)
	s.Until("a newer one to take over in the soak", r3, lifecycle.Superseded)
	prior(r4, s.First)

	// The way back is held in its middle: First is slow.
	s.Until("the newest one to fail", r4, lifecycle.Failed)
	s.Eventually("the way back to be under way", func() bool {
		state, err := s.Exec(s.Ctx, "systemctl", "show", "-P", "ActiveState", "nixfleet-rollback.service")
		return err == nil && state == "activating"
	})
	last := s.System("5", "")
	r5 := s.Release(last)
	s.Eventually("a newer release to be accepted during the way back", func() bool { return s.Row(r5).State == lifecycle.Activating })
	s.LetGo()
	s.Until("the way back to end first", r4, lifecycle.Reverted)
	s.Ended("newer releases in switch, soak and way back", r5, lifecycle.Converged, "", last)
	prior(r5, s.First)

	staged, live := s.System("6", "", "dbus=2"), s.System("7", "")
	r6 := s.Release(staged)
	s.staged("a target that waits for a boot", r6, last, staged)
	r7 := s.Release(live)
	s.Until("a newer one to take over from what was staged", r7, lifecycle.Soaking)
	prior(r7, last)
	s.Until("what was staged to be superseded", r6, lifecycle.Superseded)
	s.Ended("a newer release while another is staged", r7, lifecycle.Converged, "", live)
}
