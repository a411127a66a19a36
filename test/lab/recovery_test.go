package lab

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"nixfleet/internal/lifecycle"
)

// rowMet is how an agent says at its start which row of docs/recovery.md it met.
var rowMet = regexp.MustCompile(`found after the start.*\brow"?[=:]"?(R\d\d)`)

// rowsMet are those of the agents of this boot, in order, after the last mark in
// their log.
func (s *Solo) rowsMet(mark string) (rows []string) {
	log, err := s.Exec(s.Ctx, "journalctl", "--quiet", "--boot", "-u", agentUnitName, "-o", "cat")
	at := strings.LastIndex(log, mark)
	if mark == "" {
		at = 0
	}
	if err != nil || at < 0 {
		return nil
	}
	for _, match := range rowMet.FindAllStringSubmatch(log[at:], -1) {
		rows = append(rows, match[1])
	}
	return rows
}

// meets waits for the next agent after the given number of them, and sees that it
// met one of the rows.
func (s *Solo) meets(what, rows, mark string, after int) {
	s.T.Helper()
	var met []string
	s.Eventually(what+": the agent to say what it found", func() bool {
		met = s.rowsMet(mark)
		return len(met) > after
	})
	if !slices.Contains(strings.Fields(rows), met[after]) {
		s.T.Errorf("FAIL %s: the next agent met the row %s, want %s", what, met[after], rows)
		return
	}
	s.T.Logf("PASS %s: the next agent met the row %s", what, met[after])
}

// next lets another agent start in this boot, and sees which row it met.
func (s *Solo) next(what, row string, start func()) {
	s.T.Helper()
	before := 0
	s.Eventually("an agent to have said what it found", func() bool {
		before = len(s.rowsMet(""))
		return before > 0
	})
	start()
	s.meets(what, row, "", before)
}

// service tells systemd something about the agent's service.
func (s *Solo) service(verb string, options ...string) {
	s.T.Helper()
	s.Run(append(append([]string{"systemctl", verb}, options...), agentUnitName)...)
}

// guardIsDone waits for a guard that went back, and left that for an agent to tell.
func (s *Solo) guardIsDone(on string) {
	s.T.Helper()
	s.Eventually("a guard to have gone back to "+short(on), func() bool {
		_, err := s.Exec(s.Ctx, "test", "-e", "/var/lib/nixfleet-agent/guard-outcome")
		seen, look := s.Observe(s.Ctx)
		return err == nil && look == nil && seen == On(on)
	})
}

// TestRecoveryRowsOfSoaks lets the agents of a host meet rows of docs/recovery.md
// while it is on trial, and after it.
func TestRecoveryRowsOfSoaks(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{SoakSecs: 15})
	live := func(system string) { s.Run(system+"/bin/switch-to-configuration", "test") }
	if first := s.rowsMet(""); len(first) == 0 || first[0] != "R01" {
		t.Errorf("FAIL: an agent that knows no rollout met the rows %v", first)
	}
	s.next("converged", "R29", func() { s.service("restart") })
	second, third := s.System("2", ""), s.System("3", "")
	r := s.Release(second)
	s.Until("the soak", r, lifecycle.Soaking)
	s.next("somebody went back in the soak", "R21", func() { s.service("stop"); live(s.First); s.service("start") })
	s.Until("the end", r, lifecycle.Failed)
	r = s.Release(third)
	s.Until("the soak", r, lifecycle.Soaking)
	s.next("somebody switched to another system in the soak", "R23", func() { s.service("stop"); live(second); s.service("start") })
	s.Until("the end", r, lifecycle.Failed)
	s.next("given up, and nothing owed", "R31", func() { s.service("restart") })

	silent := s.System("4", "")
	r = s.Release(silent)
	s.Until("the soak", r, lifecycle.Soaking)
	s.next("the guard went back", "R24", func() { s.Signal("STOP") })
	s.Ended("a silent agent", r, lifecycle.Reverted, lifecycle.CauseConfirm, second)

	persisted := s.System("5", "")
	r = s.Release(persisted)
	s.Eventually("it to be persisted", func() bool {
		seen, err := s.Observe(s.Ctx)
		return err == nil && seen == On(persisted) && s.Row(r).State == lifecycle.Soaking
	})
	s.Restart()
	s.meets("booted in the soak", "R22", "", 0)
	s.Ended("booted in the soak", r, lifecycle.Converged, "", persisted)
}

// TestRecoveryRowsOfSwitches is the same for rows that a switch, or a target that is
// staged, leads to.
func TestRecoveryRowsOfSwitches(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Crashpoints: true})
	booted := func(what, row string, boot func()) {
		t.Helper()
		boot()
		s.meets(what, row, "", 0)
	}
	cut := func() { s.PowerCut(nil) }
	kill := func() { s.Signal("KILL") }

	bus := s.System("4", "", "dbus=2")
	s.arm("kill:activation/profile-set")
	r := s.Release(bus)
	s.reached("kill", "activation/profile-set")
	s.meets("killed while it staged", "R12", "crashpoint: kill at", 0)
	s.Until("it to be staged", r, lifecycle.Deferred)
	s.next("staged", "R18", func() { s.service("restart") })
	booted("booted into what was staged", "R19", s.Restart)
	s.Ended("staged, and booted", r, lifecycle.Converged, "", bus)

	refuses := s.System("5", "", "dbus=2", "interface=2")
	s.arm("kill:activation/switch-ended")
	r = s.Release(refuses)
	s.reached("kill", "activation/switch-ended")
	s.meets("killed when the switch had refused", "R11", "crashpoint: kill at", 0)
	s.Until("it to be staged", r, lifecycle.Deferred)
	booted("booted into what refused", "R19", s.Restart)
	s.Ended("refused, and booted", r, lifecycle.Converged, "", refuses)

	killed := s.System("6", "slow", "dbus=2", "interface=2")
	s.Held()
	r = s.Release(killed)
	s.Switching(killed)
	s.Signal("STOP")
	s.Run("systemctl", "kill", "-s", "KILL", "nixfleet-switch.service")
	s.next("the switch was killed, and then the agent", "R09", kill)
	s.LetGo()
	s.Ended("a killed switch", r, lifecycle.Reverted, lifecycle.CauseSwitch, refuses)

	unseen := s.System("7", "", "dbus=2", "interface=2")
	s.arm("stop:activation/switch-ended")
	r = s.Release(unseen)
	s.reached("stop", "activation/switch-ended")
	s.Run("systemctl", "stop", "nixfleet-switch.service")
	s.next("nobody saw the end of the switch, and the target runs", "R08", kill)
	s.Ended("an unseen switch", r, lifecycle.Converged, "", unseen)

	staging := s.System("11", "", "dbus=3", "interface=2")
	s.arm("stop:activation/profile-set")
	r = s.Release(staging)
	s.reached("stop", "activation/profile-set")
	booted("a power cut while it staged", "R14", cut)
	s.Until("it to be staged", r, lifecycle.Deferred)
	booted("booted into what was staged again", "R19", s.Restart)
	s.Ended("staged again, and booted", r, lifecycle.Converged, "", staging)

	written := s.System("12", "", "dbus=4", "interface=2")
	s.arm("stop:activation/boot-verified")
	r = s.Release(written)
	s.reached("stop", "activation/boot-verified")
	booted("a power cut when the boot loader was written", "R17", cut)
	s.Ended("staged by a power cut", r, lifecycle.Converged, "", written)
}

// TestRecoveryRowsOfRollbacks is the same for rows that a rollback under way leads
// to.
func TestRecoveryRowsOfRollbacks(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Crashpoints: true})
	rollsBack := func() {
		t.Helper()
		s.Eventually("the way back to be under way", func() bool {
			state, err := s.Exec(s.Ctx, "systemctl", "show", "-P", "ActiveState", "nixfleet-rollback.service")
			return err == nil && state == "activating"
		})
	}

	slow := s.System("2", "slow")
	s.Ended("a system whose switch can be held", s.Release(slow), lifecycle.Converged, "", slow)
	s.Held()
	r := s.Release(s.System("3", "unit"))
	rollsBack()
	s.next("killed while prior's program runs", "R26", func() { s.Signal("KILL") })
	s.LetGo()
	s.Ended("killed while it went back", r, lifecycle.Reverted, lifecycle.CauseSwitch, slow)
	s.Held()
	r = s.Release(s.System("4", "unit"))
	rollsBack()
	s.next("the guard finished the way back", "R28", func() {
		s.Signal("STOP")
		s.Eventually("the guard to act", func() bool {
			_, err := s.Exec(s.Ctx, "test", "-e", "/var/lib/nixfleet-agent/lease.claimed")
			return err == nil
		})
		s.LetGo()
	})
	s.Ended("a way back that a guard finished", r, lifecycle.Reverted, lifecycle.CauseSwitch, slow)

	chosen := s.System("5", "")
	s.arm("stop:activation/switch-started")
	r = s.Release(chosen)
	s.reached("stop", "activation/switch-started")
	s.Put("/boot/default-system", chosen+"\n", 0o644)
	s.Run("sync")
	s.PowerCut(nil)
	s.meets("booted into the target in its switch", "R16", "", 0)
	s.Ended("booted into the target in its switch", r, lifecycle.Converged, "", chosen)
}

// TestRecoveryRowsOfGuards is the same for rows that only a guard leads to.
func TestRecoveryRowsOfGuards(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Crashpoints: true, SoakSecs: 15})
	chosen := s.First

	old := s.System("6", "", "dbus=2")
	r := s.Release(old)
	s.staged("a target that waits for a boot", r, chosen, old)
	s.Put("/boot/default-system", chosen+"\n", 0o644)
	s.Restart()
	s.meets("staged, and the old system was booted", "R15", "", 0)
	s.Ended("staged, and the old system was booted", r, lifecycle.Reverted, lifecycle.CauseSwitch, chosen)

	mute := s.System("7", "", "dbus=3")
	r = s.Release(mute)
	s.staged("a target that waits for a boot", r, chosen, mute)
	s.service("mask")
	s.Restart()
	s.guardIsDone(chosen)
	s.service("unmask")
	s.service("start")
	s.meets("the guard went back from what was staged", "R25", "", 0)
	s.Ended("a staged target without an agent", r, lifecycle.Reverted, lifecycle.CauseSwitch, chosen)

	undone := s.System("10", "")
	s.arm("stop:activation/switch-ended")
	r = s.Release(undone)
	s.reached("stop", "activation/switch-ended")
	s.Run("systemctl", "stop", "nixfleet-switch.service")
	s.Run(chosen+"/bin/switch-to-configuration", "test")
	s.next("nobody saw the end of the switch, and somebody went back", "R10", func() { s.Signal("KILL") })
	s.Ended("an undone switch", r, lifecycle.Reverted, lifecycle.CauseSwitch, chosen)

	const journal = "/var/lib/nixfleet-agent/journal.db"
	good := s.System("8", "")
	s.arm("stop:agent/converged")
	r = s.Release(good)
	s.reached("stop", "agent/converged")
	s.service("mask", "--runtime")
	s.Run("mv", journal, journal+".good")
	s.Put(journal, "no journal", 0o600)
	s.guardIsDone(chosen)
	s.Run("mv", journal+".good", journal)
	s.service("unmask", "--runtime")
	s.next("a guard that could not read the journal went back from what had converged", "R32", func() { s.service("start") })
	s.Eventually("that to be told", func() bool { return s.GuardActed(r) })
	s.next("not on the system that converged", "R30", func() { s.service("restart") })

	lost := s.System("9", "")
	r = s.Release(lost)
	s.Until("the soak", r, lifecycle.Soaking)
	s.next("the journal was lost, and the guard went back", "R02", func() {
		s.Signal("STOP")
		s.Run("rm", journal)
	})
	s.Eventually("the host to be back", func() bool {
		seen, err := s.Observe(s.Ctx)
		return err == nil && seen == On(chosen)
	})
}
