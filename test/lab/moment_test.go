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
	// killed and cut are the rows of docs/recovery.md, one or the other, that the
	// next agent meets: in the same boot, and after a power cut.
	killed, cut string
}

// moments are spread over a whole switch, and over a way back.
var moments = []moment{
	{what: "before the intent, when the target has just been fetched", point: "activation/fetched", killed: "R03", cut: "R04"},
	{what: "between the intent and the guard", point: "agent/activation-started", killed: "R05", cut: "R13"},
	{what: "between the guard and the unit", point: "activation/switch-marked", killed: "R05", cut: "R13"},
	{what: "when the unit was started and its id not recorded", point: "activation/switch-started", killed: "R06 R07", cut: "R13"},
	{what: "while the unit runs", fault: "slow", killed: "R06", cut: "R13"},
	{what: "between the unit's end and the commit", point: "activation/switch-ended", killed: "R07", cut: "R13"},
	{what: "when the completion is committed", point: "agent/activation-completed", killed: "R20", cut: "R13"},
	{what: "when the confirmation is committed", point: "agent/confirmed", killed: "R20", cut: "R13"},
	{what: "between the profile and the boot loader", point: "activation/profile-set", killed: "R20", cut: "R13"},
	{what: "when the boot loader is written, and that is not committed", point: "activation/boot-verified", boots: true, killed: "R20", cut: "R22"},
	{what: "when the end is committed, and the lease is still there", point: "agent/converged", boots: true, killed: "R29", cut: "R29"},
	{what: "when the failure is committed, and the rollback not begun", point: "agent/activation-failed", fault: "unit", killed: "R27", cut: "R27"},
	{what: "in the middle of the rollback", point: "activation/rollback-started", fault: "unit", killed: "R26 R27", cut: "R27"},
	{what: "between the rollback's end and the commit", point: "activation/rollback-ended", fault: "unit", killed: "R27", cut: "R27"},
}

// TestKills kills the agent of a host at every moment of a switch. It ends where it
// would have without.
func TestKills(t *testing.T) {
	t.Parallel()
	atMoments(t, func(s *Solo, m moment, system string) {
		if m.point == "" {
			s.Switching(system)
			s.Signal("KILL")
			s.meets(m.what, m.killed, "code=killed", 0)
			s.LetGo()
			return
		}
		s.reached("kill", m.point)
		s.meets(m.what, m.killed, "crashpoint: kill at "+m.point, 0)
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
					s.meets(m.what, m.cut, "", 0)
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
