package lab

import (
	"fmt"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// Agents that a new system may bring.
const (
	// deadAgent exits at once.
	deadAgent = "#!/bin/sh\nexit 1\n"
	// crashingAgent is the first system's, which has crash points.
	crashingAgent = "#!/bin/sh\nNIXFLEET_CRASHPOINT=kill:journal/prepared exec /run/booted-system/agent/bin/nixfleet-agent \"$@\"\n"
	// wrongAgent lives, keeps saying so, and does nothing else.
	wrongAgent = `use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
while (1) {
	open(my $f, ">", "/run/nixfleet-guard/alive.wrong") or die;
	printf $f "%d\n", clock_gettime(CLOCK_MONOTONIC) * 1e9;
	close $f;
	rename("/run/nixfleet-guard/alive.wrong", "/run/nixfleet-guard/alive") or die;
	sleep 1;
}`
)

// TestGuard breaks the agent of a real host, or its network, in all the ways that
// a new system can, and expects the host back on exactly the system that it ran
// before; and a host whose network works to stay on the new one.
func TestGuard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		fault  string                                // of the new system
		agent  string                                // that it brings, as a script
		more   []string                              // further arguments of it
		inject func(s *Solo, rollout, system string) // once its switch holds, or, without the fault slow, has been released
		mend   func(s *Solo)                         // when the host is where it must be
		stays  bool                                  // on the new system; else it goes back, for the cause
		cause  lifecycle.Cause                       // that the control plane hears
		guard  bool                                  // the guard is who acts
	}{
		{what: "the agent is killed and masked right after the switch began", fault: "slow",
			inject: func(s *Solo, _, _ string) { s.Run("systemctl", "mask", agentUnitName); s.Signal("KILL") },
			mend:   unmask, cause: lifecycle.CauseDeadline, guard: true},
		{what: "the agent is stopped like a stuck one in the soak",
			inject: func(s *Solo, rollout, _ string) { s.Until("the soak", rollout, lifecycle.Soaking); s.Signal("STOP") },
			cause:  lifecycle.CauseConfirm, guard: true},
		{what: "the new system's agent exits at once", agent: deadAgent,
			inject: (*Solo).agentDies, cause: lifecycle.CauseDeadline, guard: true},
		{what: "the new system's agent dies before its first commit, again and again", agent: crashingAgent,
			inject: (*Solo).agentCrashes, cause: lifecycle.CauseDeadline, guard: true},
		{what: "the new system has no network, and the agent lives", fault: "network",
			inject: (*Solo).isCutOff, cause: lifecycle.CauseConfirm},
		{what: "somebody pulls the cable during the switch, and the agent lives", fault: "slow",
			inject: (*Solo).silence,
			mend:   func(s *Solo) { s.Check(s.MendNetwork()) }, cause: lifecycle.CauseConfirm},
		{what: "no network, and the agent is stopped", fault: "slow network",
			inject: func(s *Solo, _, _ string) { s.Signal("STOP") },
			cause:  lifecycle.CauseDeadline, guard: true},
		{what: "no network, and an agent that lives and never gives up", fault: "network",
			inject: (*Solo).agentIsWrong, mend: unmask, cause: lifecycle.CauseConfirm, guard: true},
		{what: "the new system is persisted, and does not start its agent at the next boot", fault: "no-agent",
			inject: (*Solo).bootPersisted, cause: lifecycle.CauseConfirm, guard: true},
		{what: "the new system is persisted, and its next boot ends in rescue mode", fault: "rescue",
			inject: (*Solo).bootPersisted, cause: lifecycle.CauseConfirm, guard: true},
		{what: "the new system is staged, and does not start its agent at the boot", fault: "no-agent", more: []string{"dbus=2"},
			inject: (*Solo).bootStaged, cause: lifecycle.CauseSwitch, guard: true},
		{what: "the control plane is away during the switch and the confirm window, and the cache answers", fault: "slow",
			inject: func(s *Solo, _, _ string) { s.Fleet.StopControlPlane() },
			mend:   (*Solo).outlastWindow, stays: true},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := NewSolo(t, SoloConfig{SoakSecs: 25, Crashpoints: c.agent == crashingAgent})
			system := s.System("2", c.fault, c.more...)
			if c.agent != "" {
				system = s.SystemWith(s.Agent([]byte(c.agent)), "2", c.fault, c.more...)
			}
			s.Held()
			rollout := s.Release(system)
			if c.fault == "slow" || c.fault == "slow network" {
				s.Switching(system)
			}
			c.inject(s, rollout, system)
			s.LetGo()
			broken := time.Now()

			expect, state := s.First, lifecycle.Reverted
			if c.stays {
				expect, state = system, lifecycle.Converged
			}
			s.Eventually("the host to be on "+short(expect), func() bool {
				seen, err := s.Observe(s.Ctx)
				return err == nil && seen == On(expect)
			})
			took := time.Since(broken)
			if c.mend != nil {
				c.mend(s)
			}
			s.Ended(fmt.Sprintf("there after %.1f s", took.Seconds()), rollout, state, c.cause, expect)
			if acted := s.GuardActed(rollout); acted != c.guard {
				t.Errorf("FAIL: the guard acted: %v, want %v", acted, c.guard)
			}
		})
	}
}

func unmask(s *Solo) {
	s.Run("systemctl", "unmask", agentUnitName)
	s.Run("systemctl", "start", agentUnitName)
}

// silence pulls the cable during a switch, and sees that the host can still say what
// it waits for, and that the control plane says what it does not know.
func (s *Solo) silence(_, _ string) {
	s.Check(s.CutNetwork())
	s.LetGo()
	const because = "its cable is pulled"
	s.WaitsUnheard(wire.WaitingOnControlPlane, because)
	s.WaitsUnheard(wire.WaitingOnConfirm, because)
	s.Told("Nothing was heard of it since ")
}

// agentDies waits until the agent that the system brought has died.
func (s *Solo) agentDies(_, system string) {
	s.Eventually("the new agent to die", func() bool {
		seen, err := s.Observe(s.Ctx)
		status, err2 := s.Exec(s.Ctx, "systemctl", "show", "-P", "ExecMainStatus", agentUnitName)
		return err == nil && err2 == nil && seen.Current == system && status == "1"
	})
}

// agentCrashes waits until the agent that the system brought has died a few times.
func (s *Solo) agentCrashes(_, system string) {
	s.Eventually("the new agent to die again and again", func() bool {
		seen, err := s.Observe(s.Ctx)
		restarts, err2 := s.Exec(s.Ctx, "systemctl", "show", "-P", "NRestarts", agentUnitName)
		return err == nil && err2 == nil && seen.Current == system && len(restarts) == 1 && restarts > "2"
	})
}

// isCutOff waits until the host is in its new system and unreachable.
func (s *Solo) isCutOff(_, system string) {
	s.Eventually("the network to be down", func() bool {
		seen, err := s.Observe(s.Ctx)
		up, err2 := s.Exec(s.Ctx, "ip", "link", "show", "dev", "eth0", "up")
		return err == nil && err2 == nil && seen.Current == system && up == ""
	})
}

// agentIsWrong puts something in the agent's place that only shows that it lives,
// once the agent has begun the soak.
func (s *Solo) agentIsWrong(rollout, system string) {
	s.isCutOff(rollout, system)
	s.Eventually("the soak to begin", func() bool {
		st, ok := s.Status()
		return ok && st.Rollout == rollout && st.State == lifecycle.Soaking
	})
	s.Run("systemctl", "mask", agentUnitName)
	s.Signal("KILL")
	s.Run("systemd-run", "--quiet", "--unit=wrong-agent", "perl", "-e", wrongAgent)
}

// bootPersisted boots the host once the new system is its boot default.
func (s *Solo) bootPersisted(rollout, system string) {
	s.Eventually("the new system to be the boot default, and still on trial", func() bool {
		seen, err := s.Observe(s.Ctx)
		return err == nil && seen.BootDefault == system && s.Row(rollout).State == lifecycle.Soaking
	})
	s.boots(system)
}

// bootStaged boots the host once the new system is staged.
func (s *Solo) bootStaged(rollout, system string) {
	s.Until("the new system to be staged", rollout, lifecycle.Deferred)
	s.boots(system)
}

// boots boots the host, without waiting for it, and sees that the system came up.
func (s *Solo) boots(system string) {
	before := s.Boots()
	_, _ = s.Exec(s.Ctx, "systemctl", "reboot") // it may be cut off by what it asks for
	s.Eventually("the boot into "+short(system), func() bool {
		booted, err := s.Exec(s.Ctx, "readlink", "/run/booted-system")
		return s.Boots() > before && err == nil && booted == system
	})
}

// outlastWindow waits until the window in which something must be confirmed is
// over for sure, and brings the control plane back.
func (s *Solo) outlastWindow() {
	select {
	case <-time.After((ConfirmSecs + AliveSecs) * time.Second):
	case <-s.Ctx.Done():
	}
	s.Fleet.StartControlPlane()
}
