package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
)

// moment is an instant of a switch or of its way back, at which something
// happens to the host.
type moment struct {
	what  string
	point string // crash point of the agent; "" is while the unit runs
	fault string // of the new system
	// boots tells whether the new system is what the host boots from then on.
	boots bool
}

// moments are spread over a whole switch, and over a way back.
var moments = []moment{
	{what: "before the intent, when the target has just been fetched", point: "activation/fetched"},
	{what: "between the intent and the guard", point: "agent/activation-started"},
	{what: "between the guard and the unit", point: "activation/switch-marked"},
	{what: "when the unit was started and its id not recorded", point: "activation/switch-started"},
	{what: "while the unit runs", fault: "slow"},
	{what: "between the unit's end and the commit", point: "activation/switch-ended"},
	{what: "when the completion is committed", point: "agent/activation-completed"},
	{what: "when the confirmation is committed", point: "agent/confirmed"},
	{what: "between the profile and the boot loader", point: "activation/profile-set"},
	{what: "when the boot loader is written, and that is not committed", point: "activation/boot-verified", boots: true},
	{what: "when the end is committed, and the lease is still there", point: "agent/converged", boots: true},
	{what: "when the failure is committed, and the rollback not begun", point: "agent/activation-failed", fault: "unit"},
	{what: "in the middle of the rollback", point: "activation/rollback-started", fault: "unit"},
	{what: "between the rollback's end and the commit", point: "activation/rollback-ended", fault: "unit"},
}

// TestKills kills the agent of a host at every moment of a switch. It ends where it
// would have without.
func TestKills(t *testing.T) {
	t.Parallel()
	atMoments(t, func(s *Solo, m moment, system string) {
		if m.point == "" {
			s.Switching(system)
			s.Signal("KILL")
			s.LetGo()
			return
		}
		s.reached("kill", m.point)
	}, "kill")
}

// TestPowerCuts cuts the power of a host at every moment of a switch, so that what
// was not synced is lost. It comes up on prior or target, as the moment has it, and
// ends where it would have without.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	atMoments(t, func(s *Solo, m moment, system string) {
		if m.point == "" {
			s.Switching(system)
		} else {
			s.reached("stop", m.point)
		}
		s.PowerCut(nil)
	}, "stop")
}

// atMoments lets something happen at every moment, on a few hosts that share them.
func atMoments(t *testing.T, happen func(s *Solo, m moment, system string), mode string) {
	const hosts = 3
	for n := range hosts {
		t.Run(fmt.Sprintf("host %d", n+1), func(t *testing.T) {
			t.Parallel()
			s := NewSolo(t, SoloConfig{Crashpoints: true, Limit: 5 * time.Minute})
			on := s.First
			for i := n; i < len(moments); i += hosts {
				m := moments[i]
				system := s.System(fmt.Sprint(i+2), m.fault)
				if m.point == "" {
					s.Held()
				} else {
					s.arm(mode + ":" + m.point)
				}
				rollout := s.Release(system)
				happen(s, m, system)
				if mode == "stop" {
					s.cameUp(m, on, system)
				}
				if m.fault == "unit" {
					s.Ended(m.what, rollout, lifecycle.Reverted, lifecycle.CauseSwitch, on)
				} else {
					s.Ended(m.what, rollout, lifecycle.Converged, "", system)
					on = system
				}
				s.Kinds(rollout) // without gaps
			}
		})
	}
}

// arm makes the agent's next run die or stop at a crash point.
func (s *Solo) arm(point string) {
	s.T.Helper()
	s.Put("/run/lab-next-agent", "NIXFLEET_CRASHPOINT="+point+"\n", 0o600)
	s.Run("systemctl", "restart", agentUnitName)
	s.Eventually("the agent to be ready for its end", func() bool {
		_, ok := s.Status()
		return ok
	})
}

// reached waits until the agent has died or stopped where it was to.
func (s *Solo) reached(mode, point string) {
	s.T.Helper()
	want := fmt.Sprintf("crashpoint: %s at %s", mode, point)
	s.Eventually(want, func() bool {
		log, err := s.Exec(s.Ctx, "journalctl", "--quiet", "--boot", "-u", agentUnitName, "-o", "cat", "-n", "100")
		return err == nil && strings.Contains(log, want)
	})
}

// cameUp sees that the boot after a power cut led where it had to.
func (s *Solo) cameUp(m moment, prior, target string) {
	s.T.Helper()
	want := prior
	if m.boots {
		want = target
	}
	if booted := s.Run("readlink", "/run/booted-system"); booted != want {
		s.T.Errorf("FAIL %s: came up on %s, want %s", m.what, short(booted), short(want))
	}
}
