package lab

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
)

// Times of the guard's scenarios, short so that many fit into a few minutes.
const (
	guardAliveSecs   = 8
	guardConfirmSecs = 10
	guardSoakSecs    = 25
)

// guardHook makes every switch last until the test lets it go on, once it has
// made its system the current one. The system "no-agent" also takes the agent's
// program away, and version 1 gives it back, as their units would.
const guardHook = `#!/bin/sh
conf=/etc/systemd/system/nixfleet-agent.service.d
case "$2" in
1) rm -rf $conf; systemctl daemon-reload ;;
no-agent)
	mkdir -p $conf
	printf '[Service]\nType=simple\nExecStart=\nExecStart=/bin/false\n' >$conf/gone.conf
	systemctl daemon-reload
	systemctl restart --no-block nixfleet-agent ;;
esac
while [ -e /run/lab-hold ]; do sleep 0.1; done
`

// TestGuard breaks the agent of a real host, or its network, in all the ways that
// a new system can, and expects the host back on exactly the system that it ran
// before; and a host whose network works to stay on the new one.
func TestGuard(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	const name = "web-01"
	l := Open(t)
	bin := l.Programs()
	cache := l.Cache("good")
	v1 := l.System(name, "1", "")
	cache.Push(v1)
	f := l.Fleet(bin, guardSoakSecs, map[string]any{"confirmWindowSecs": guardConfirmSecs, "aliveSecs": guardAliveSecs}, cache)
	files := f.Add(name)
	h := l.Host(ctx, name, nil)
	h.install(ctx, t, cache, v1)
	if err := h.Write(ctx, "/etc/lab-switch-hook", guardHook, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	f.Release(map[string]string{name: v1})
	f.Enrol(ctx, h, files, map[string]string{
		"NIXFLEET_AGENT_CACHE_URL":     cache.URL,
		"NIXFLEET_AGENT_MIN_FREE_NIX":  "1MiB",
		"NIXFLEET_AGENT_MIN_FREE_BOOT": "1MiB",
	})

	s := &guardScenes{t: t, l: l, f: f, h: h, cache: cache, name: name, v1: v1}
	run := func(argv ...string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := h.Exec(ctx, argv...); return err }
	}
	each := func(all ...func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			for _, do := range all {
				if err := do(ctx); err != nil {
					return err
				}
			}
			return nil
		}
	}
	cut := func(context.Context) error { return h.CutNetwork() }
	mend := func(context.Context) error { return h.MendNetwork() }
	mask, unmask := run("systemctl", "mask", agentUnitName), run("systemctl", "unmask", agentUnitName)
	startAgent := run("systemctl", "start", agentUnitName)
	kill, stop := run("systemctl", "kill", "-s", "KILL", agentUnitName), run("systemctl", "kill", "-s", "STOP", agentUnitName)

	for _, scene := range []guardScene{
		{what: "the agent is killed and masked right after the switch began", version: "masked",
			when: s.switching, inject: each(mask, kill), mend: each(unmask, startAgent), cause: lifecycle.CauseDeadline, guard: true},
		{what: "the agent is stopped like a stuck one in the soak", version: "stopped",
			when: s.soaking, inject: stop, cause: lifecycle.CauseConfirm, guard: true},
		{what: "the new system's agent exits at once", version: "no-agent",
			when: s.switching, inject: s.agentIsGone, cause: lifecycle.CauseDeadline, guard: true},
		{what: "the new system has no network, and the agent lives", version: "no-network",
			when: s.switching, inject: cut, mend: mend, cause: lifecycle.CauseConfirm},
		{what: "no network, and the agent is stopped", version: "no-network-stopped",
			when: s.switching, inject: each(cut, stop), mend: mend, cause: lifecycle.CauseDeadline, guard: true},
		{what: "the new system is persisted, and does not start the agent at its next boot", version: "no-boot",
			when: s.persisted, inject: each(mask, h.Reboot), mend: each(unmask, startAgent), cause: lifecycle.CauseConfirm, guard: true},
		{what: "the control plane is away during the switch and the confirm window, the cache answers", version: "no-control-plane",
			when: s.switching, inject: func(context.Context) error { f.StopControlPlane(); return nil }, mend: s.outlastWindow, stays: true},
	} {
		s.play(ctx, scene)
	}
}

// guardScene is one way to break a host while it goes to a new system.
type guardScene struct {
	what, version string
	when          func(ctx context.Context, rollout, system string) (bool, error) // the moment
	inject        func(ctx context.Context) error
	mend          func(ctx context.Context) error // when the host is where it must be; nil: nothing is broken by then

	stays bool            // on the new system; else it goes back, for the cause
	cause lifecycle.Cause // that the control plane hears
	guard bool            // the guard is who acts
}

// guardScenes is the host that all scenes happen to.
type guardScenes struct {
	t        *testing.T
	l        *Lab
	f        *Fleet
	h        *Host
	cache    *Cache
	name, v1 string
}

func (s *guardScenes) play(ctx context.Context, c guardScene) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	system := s.l.System(s.name, c.version, "")
	s.cache.Push(system)
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			seen, _ := s.h.Observe(context.WithoutCancel(ctx))
			s.t.Fatalf("FAIL %s: %v (%v)", c.what, err, seen)
		}
	}
	_, err := s.h.Exec(ctx, "touch", "/run/lab-hold")
	must(err)
	begin := time.Now()
	rollout := s.f.Release(map[string]string{s.name: system})
	must(Until(ctx, "the moment to break something", func() (bool, error) {
		switching, err := s.switching(ctx, rollout, system)
		if err != nil || !switching {
			return false, err
		}
		return true, nil
	}))
	release := func() { _, err = s.h.Exec(ctx, "rm", "-f", "/run/lab-hold"); must(err) }
	if now, err := c.when(ctx, rollout, system); err != nil || !now {
		release() // its moment comes after the switch
	}
	must(Until(ctx, "the moment to break something", func() (bool, error) { return c.when(ctx, rollout, system) }))
	must(c.inject(ctx))
	release()
	injected := time.Now()

	expect, state := s.v1, lifecycle.Reverted
	if c.stays {
		expect, state = system, lifecycle.Converged
	}
	var seen Observed
	must(Until(ctx, "the host to be on "+short(expect), func() (bool, error) {
		seen, err = s.h.Observe(ctx)
		return err == nil && seen == On(expect), nil
	}))
	took := time.Since(injected)
	if c.mend != nil {
		must(c.mend(ctx))
	}
	var problems []string
	must(Until(ctx, "the control plane to hear that it is "+string(state), func() (bool, error) {
		row, err := s.f.Host(ctx, rollout, s.name)
		if err != nil || row.State != state {
			return false, nil // it may not have come back yet
		}
		if c.cause != "" && (row.Failure == nil || row.Failure.Cause != c.cause) {
			problems = append(problems, fmt.Sprintf("failure %+v, want cause %s", row.Failure, c.cause))
		}
		return true, nil
	}))
	events, err := s.f.Events(ctx, rollout, s.name)
	must(err)
	acted := false
	for _, e := range events {
		acted = acted || e.Kind == lifecycle.KindNotice && strings.Contains(string(e.Event), lifecycle.NoticeGuardActed)
	}
	if acted != c.guard {
		problems = append(problems, fmt.Sprintf("the guard acted: %v, want %v", acted, c.guard))
	}
	if seen, err = s.h.Observe(ctx); err != nil || seen != On(expect) {
		problems = append(problems, fmt.Sprintf("afterwards %v, %v", seen, err))
	}
	must(Until(ctx, "the lease to be gone", func() (bool, error) {
		left, err := s.h.Exec(ctx, "find", "/var/lib/nixfleet-agent", "-name", "lease*", "-o", "-name", "guard-outcome")
		return left == "", err
	}))
	verdict := "PASS"
	if len(problems) > 0 {
		verdict = "FAIL"
		s.t.Errorf("%s: %s", c.what, strings.Join(problems, "; "))
	}
	last := events[len(events)-1].Kind
	s.t.Logf("%s %s: %v, last event %s, back after %.1f s, in all %.1f s", verdict, c.what, seen, last, took.Seconds(), time.Since(begin).Seconds())
}

// switching: the switch is under way and has made the new system the current one.
func (s *guardScenes) switching(ctx context.Context, _, system string) (bool, error) {
	state, err := s.h.Exec(ctx, "systemctl", "show", "-P", "ActiveState", "nixfleet-switch.service")
	if err != nil || state != "activating" {
		return false, err
	}
	seen, err := s.h.Observe(ctx)
	return seen.Current == system, err
}

// soaking: the control plane says so.
func (s *guardScenes) soaking(ctx context.Context, rollout, _ string) (bool, error) {
	row, err := s.f.Host(ctx, rollout, s.name)
	return err == nil && row.State == lifecycle.Soaking, nil
}

// persisted: the new system is what the host would boot, and it is still on trial.
func (s *guardScenes) persisted(ctx context.Context, rollout, system string) (bool, error) {
	seen, err := s.h.Observe(ctx)
	if err != nil || seen.BootDefault != system {
		return false, err
	}
	return s.soaking(ctx, rollout, system)
}

// agentIsGone is nothing more to inject: the system itself has done it. It waits
// until that is to be seen.
func (s *guardScenes) agentIsGone(ctx context.Context) error {
	return Until(ctx, "the agent to exit at once", func() (bool, error) {
		// exec-condition and others are not there: false exits with 1.
		status, err := s.h.Exec(ctx, "systemctl", "show", "-P", "ExecMainStatus", agentUnitName)
		return status == "1", err
	})
}

// outlastWindow waits until the window in which something must be confirmed is
// over for sure, sees that the host has stayed, and brings the control plane back.
func (s *guardScenes) outlastWindow(ctx context.Context) error {
	select {
	case <-time.After((guardConfirmSecs + guardAliveSecs) * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.f.StartControlPlane()
	return nil
}
