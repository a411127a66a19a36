package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// Solo is one host with an owner, a control plane and a cache of its own, which
// has enrolled and runs the system First.
type Solo struct {
	*Host
	T     testing.TB
	Ctx   context.Context
	Fleet *Fleet
	Cache *Cache
	First string // store path

	lab   *Lab
	agent string // store path of the agent's package
	began time.Time
}

// SoloConfig is what differs between scenarios. The zero value is a host whose
// policy has the defaults, but for a soak of 2 s.
type SoloConfig struct {
	Policy      map[string]any // fields of the rollout policy
	SoakSecs    int
	Probes      string            // health-checks.json
	Environment map[string]string // settings of the agent
	Crashpoints bool              // in the agent
	Plane       []string          // further arguments of the control plane
	Limit       time.Duration     // for the whole scenario; 5 minutes when 0
	First       []string          // further arguments of the first system
}

// Times of the policy, short so that a scenario that waits for them does not wait
// long.
const (
	AliveSecs   = 8
	ConfirmSecs = 15
)

// soloHost is the name of every host that is alone.
const soloHost = "web-01"

// NewSolo makes the host and waits until its first rollout has ended: the release
// of what it runs already.
func NewSolo(t testing.TB, c SoloConfig) *Solo {
	t.Helper()
	limit := c.Limit
	if limit == 0 {
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	l := Open(t)
	s := &Solo{T: t, Ctx: ctx, lab: l, Cache: l.Cache("good")}
	bin := l.Programs(c.Crashpoints)
	program, err := os.ReadFile(filepath.Join(bin, "nixfleet-agent"))
	s.Check(err)
	s.agent = l.Agent(program)
	policy := map[string]any{"healthFailureSecs": 3, "confirmWindowSecs": ConfirmSecs, "aliveSecs": AliveSecs}
	maps.Copy(policy, c.Policy)
	soak := c.SoakSecs
	if soak == 0 {
		soak = 2
	}
	s.Fleet = l.Fleet(bin, soak, policy, c.Plane, s.Cache)
	files := s.Fleet.Add(soloHost)
	if c.Probes != "" {
		files["/etc/nixfleet/agent/health-checks.json"] = c.Probes
	}
	s.First = s.System("1", "", c.First...)
	s.Host = l.Host(ctx, soloHost, nil)
	s.install(ctx, t, s.Cache, s.First)
	s.Restart()
	first := s.Release(s.First)
	environment := map[string]string{
		"NIXFLEET_AGENT_CACHE_URL":     s.Cache.URL,
		"NIXFLEET_AGENT_MIN_FREE_NIX":  "1MiB",
		"NIXFLEET_AGENT_MIN_FREE_BOOT": "1MiB",
	}
	maps.Copy(environment, c.Environment)
	s.Fleet.Enrol(ctx, s.Host, files, environment)
	s.Until("the first rollout to end", first, lifecycle.Converged)
	s.MadeLive()  // by the installation
	s.Run("sync") // which was long ago
	return s
}

// Check ends the scenario when something that has to work did not.
func (s *Solo) Check(err error) {
	s.T.Helper()
	if err == nil {
		return
	}
	seen := "it is not to be seen"
	if s.Host != nil {
		if o, err := s.Observe(context.WithoutCancel(s.Ctx)); err == nil {
			seen = o.String()
		}
	}
	s.T.Fatalf("FAIL: %v (%s)", err, seen)
}

// Run runs a command in the host that has to succeed.
func (s *Solo) Run(argv ...string) string {
	s.T.Helper()
	out, err := s.Exec(s.Ctx, argv...)
	s.Check(err)
	return out
}

// PowerCut ends the host as by pulling its plug, and boots it again.
func (s *Solo) PowerCut(prepare func(root string) error) {
	s.T.Helper()
	s.Check(s.CutPower())
	ctx, cancel := context.WithTimeout(s.Ctx, stepLimit)
	defer cancel()
	if err := s.PowerOn(ctx, prepare); err != nil {
		_ = s.Log(s.T.Output())
		s.Check(err)
	}
}

// Put writes a file of the host.
func (s *Solo) Put(path, content string, mode os.FileMode) {
	s.T.Helper()
	s.Check(s.Write(s.Ctx, path, content, mode))
}

// Restart boots the host in order.
func (s *Solo) Restart() {
	s.T.Helper()
	s.Check(s.Reboot(s.Ctx))
}

// stepLimit is how long anything in a scenario may take.
const stepLimit = 90 * time.Second

// Eventually waits for something that has to come true.
func (s *Solo) Eventually(what string, ask func() bool) {
	s.T.Helper()
	s.Check(s.until(what, ask))
}

func (s *Solo) until(what string, ask func() bool) error {
	ctx, cancel := context.WithTimeout(s.Ctx, stepLimit)
	defer cancel()
	return Until(ctx, what, func() (bool, error) { return ask(), nil })
}

// System builds a system with the host's agent and puts it into the cache.
func (s *Solo) System(version, fault string, further ...string) string {
	s.T.Helper()
	return s.SystemWith(s.agent, version, fault, further...)
}

// SystemWith is System with another agent's package.
func (s *Solo) SystemWith(agent, version, fault string, further ...string) string {
	s.T.Helper()
	path := s.lab.System(soloHost, version, agent, fault, further...)
	s.Cache.Push(path)
	return path
}

// Agent is a package of another agent than the host's.
func (s *Solo) Agent(program []byte) string {
	s.T.Helper()
	return s.lab.Agent(program)
}

// AnotherAgent is a package of the host's agent that differs from it.
func (s *Solo) AnotherAgent() string {
	s.T.Helper()
	program, err := os.ReadFile(filepath.Join(s.agent, "bin/nixfleet-agent"))
	s.Check(err)
	return s.Agent(append(program, "another"...)) // what follows a program is not loaded
}

// Release publishes a system for the host: a scenario begins.
func (s *Solo) Release(system string) (rollout string) {
	s.T.Helper()
	s.began = time.Now()
	return s.Fleet.Release(map[string]string{soloHost: system})
}

// Row is what the control plane knows about the host in a rollout; zero when it
// knows nothing yet or is away.
func (s *Solo) Row(rollout string) wire.RolloutHost {
	row, err := s.Fleet.Host(s.Ctx, rollout, soloHost)
	if err != nil {
		return wire.RolloutHost{}
	}
	return row
}

// Until waits until the control plane knows the host in a state.
func (s *Solo) Until(what, rollout string, want lifecycle.State) wire.RolloutHost {
	s.T.Helper()
	var row wire.RolloutHost
	err := s.until(what, func() bool {
		row = s.Row(rollout)
		return row.State == want
	})
	if err != nil {
		s.Check(fmt.Errorf("%w; the control plane knows it as %q", err, row.State))
	}
	return row
}

// Held makes systems with the fault slow wait in the middle of their switch.
func (s *Solo) Held() {
	s.T.Helper()
	s.Run("touch", "/run/lab-hold")
}

// LetGo ends what Held began.
func (s *Solo) LetGo() {
	s.T.Helper()
	s.Run("rm", "-f", "/run/lab-hold")
}

// Switching waits until the switch to a system is under way and has made it the
// current one.
func (s *Solo) Switching(system string) {
	s.T.Helper()
	s.Eventually("the switch to be under way", func() bool {
		state, err := s.Exec(s.Ctx, "systemctl", "show", "-P", "ActiveState", "nixfleet-switch.service")
		if err != nil || state != "activating" {
			return false
		}
		seen, err := s.Observe(s.Ctx)
		return err == nil && seen.Current == system
	})
}

// status is what the agent on the host says about itself.
type status struct {
	State             lifecycle.State
	Rollout           string
	ClockSynchronised bool
	WaitingOn         []struct {
		On  wire.WaitingOn
		Why string
	}
	Probes []struct {
		Name string
		Last *struct {
			Status lifecycle.Status
			Reason string
		}
	}
}

// agentProgram is that of the system that runs.
const agentProgram = "/run/current-system/agent/bin/nixfleet-agent"

// Status asks the agent; ok is false while it does not answer.
func (s *Solo) Status() (st status, ok bool) {
	out, err := s.Exec(s.Ctx, agentProgram, "status", "--json")
	return st, err == nil && json.Unmarshal([]byte(out), &st) == nil
}

// Waits waits until the host is seen to wait on something, in the one sentence for
// it, by all who can be asked: the agent on the host, its heartbeats, and the control plane
// through nixfleet why. It gives why the agent waits.
func (s *Solo) Waits(on wire.WaitingOn) (why string) {
	s.T.Helper()
	why = s.waitsHere(on)
	s.Told(on.Sentence())
	// A refusal is told before the next heartbeat; that says it, too.
	s.Eventually("a heartbeat to say that the host waits on "+string(on), func() bool {
		view, err := operator.Get[wire.HostView](s.Ctx, s.Fleet.Client, wire.Fill(wire.PathHost, soloHost))
		return err == nil && slices.Contains(view.WaitingOn, on)
	})
	return why
}

// Told waits until nixfleet why answers with a sentence: in its first line, which the
// facts are below.
func (s *Solo) Told(sentence string) {
	s.T.Helper()
	var said string
	err := s.until("nixfleet why to say "+sentence, func() bool {
		said, _, _ = strings.Cut(s.Fleet.Why(soloHost), "\n")
		return strings.Contains(said, sentence)
	})
	if err != nil {
		s.Check(fmt.Errorf("%w; it says %s", err, said))
	}
	s.T.Logf("nixfleet why: %s", said)
}

// WaitsUnheard is Waits for what nobody but the host itself can know, and says why
// that is so.
func (s *Solo) WaitsUnheard(on wire.WaitingOn, because string) {
	s.T.Helper()
	s.T.Logf("only the host says %q: %s", on.Sentence(), because)
	s.waitsHere(on)
}

// waitsHere waits until the agent says, to programs and to people, that it waits on
// something.
func (s *Solo) waitsHere(on wire.WaitingOn) (why string) {
	s.T.Helper()
	var last status
	var said string
	err := s.until("the agent to wait on "+string(on), func() bool {
		if st, ok := s.Status(); ok {
			last = st
		}
		for _, w := range last.WaitingOn {
			if w.On == on {
				why = w.Why
				said, _ = s.Exec(s.Ctx, agentProgram, "status") // an agent that was just stopped says nothing
				return strings.Contains(said, on.Sentence()+" Since ")
			}
		}
		return false
	})
	if err != nil {
		s.Check(fmt.Errorf("%w; it says %+v\n%s", err, last, said))
	}
	return why
}

// Probe waits until the last result of a probe is this one, as the agent on the
// host tells it: a failure with exactly the reason, or with "" a pass.
func (s *Solo) Probe(name, reason string) {
	s.T.Helper()
	s.ProbeWith(name, reason, func(rest string) bool { return rest == "" })
}

// ProbeWith is Probe for a reason that ends with something, such as a time, that
// is not known before.
func (s *Solo) ProbeWith(name, reason string, ends func(rest string) bool) {
	s.T.Helper()
	want := lifecycle.Fail
	if reason == "" {
		want = lifecycle.Pass
	}
	last := "nothing"
	err := s.until(fmt.Sprintf("the probe %s: %s %q", name, want, reason), func() bool {
		st, _ := s.Status()
		for _, p := range st.Probes {
			if p.Name == name && p.Last != nil {
				last = fmt.Sprintf("%s %q", p.Last.Status, p.Last.Reason)
				rest, begins := strings.CutPrefix(p.Last.Reason, reason)
				return p.Last.Status == want && begins && ends(rest)
			}
		}
		return false
	})
	if err != nil {
		s.Check(fmt.Errorf("%w; it said %s", err, last))
	}
}

// Works puts the workload on the host.
func (s *Solo) Works() {
	s.T.Helper()
	s.Put("/usr/local/bin/workload", string(s.lab.Workload()), 0o755)
}

// Ended waits for the end of a scenario and judges it.
func (s *Solo) Ended(what, rollout string, state lifecycle.State, cause lifecycle.Cause, on string) {
	s.T.Helper()
	row := s.Until(what, rollout, state)
	if row.Failure != nil && row.Failure.Cause != cause || row.Failure == nil && cause != "" {
		s.T.Errorf("%s: failure %+v, want cause %q", what, row.Failure, cause)
	}
	s.Verdict(what, rollout, On(on))
	s.nothingLeft(what)
}

// nothingLeft: of a rollout that has ended no lease, claim or outcome is left.
func (s *Solo) nothingLeft(what string) {
	s.T.Helper()
	s.Eventually(what+": the lease to be gone", func() bool {
		left, err := s.Exec(s.Ctx, "find", "/var/lib/nixfleet-agent", "-name", "lease*", "-o", "-name", "guard-outcome")
		return err == nil && left == ""
	})
}

// Verdict compares what the host shows with what it must show.
func (s *Solo) Verdict(what, rollout string, want Observed) {
	s.T.Helper()
	seen, err := s.Observe(s.Ctx)
	s.Check(err)
	event, err := s.Fleet.LastEvent(s.Ctx, rollout, soloHost)
	s.Check(err)
	verdict := "PASS"
	if seen != want {
		verdict = "FAIL"
		s.T.Errorf("%s: %v, want %v", what, seen, want)
	}
	s.T.Logf("%s %s: %v, last event %s, %.1f s", verdict, what, seen, event, time.Since(s.began).Seconds())
}

// Kinds are those of the events that the control plane has of the host in a
// rollout, in order.
func (s *Solo) Kinds(rollout string) []lifecycle.Kind {
	s.T.Helper()
	events, err := s.Fleet.Events(s.Ctx, rollout, soloHost)
	s.Check(err)
	var kinds []lifecycle.Kind
	for i, e := range events {
		if e.Seq != int64(i+1) {
			s.T.Errorf("event %d of %s has the number %d", i+1, rollout, e.Seq)
		}
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// Has tells whether there is an event of the kind that contains the words.
func (s *Solo) Has(rollout string, kind lifecycle.Kind, words string) bool {
	s.T.Helper()
	events, err := s.Fleet.Events(s.Ctx, rollout, soloHost)
	s.Check(err)
	return slices.ContainsFunc(events, func(e wire.EventView) bool {
		return e.Kind == kind && strings.Contains(string(e.Event), words)
	})
}

// GuardActed tells whether the host reported that its guard took it back.
func (s *Solo) GuardActed(rollout string) bool {
	s.T.Helper()
	return s.Has(rollout, lifecycle.KindNotice, lifecycle.NoticeGuardActed)
}

// MadeLive are the versions that a switch program made live since the last look.
func (s *Solo) MadeLive() string {
	s.T.Helper()
	return strings.Join(strings.Fields(s.Run("sh", "-c", "cat /var/lib/lab-made-live; : > /var/lib/lab-made-live")), " ")
}

// Signal sends a signal to every process of the agent's service.
func (s *Solo) Signal(name string) {
	s.T.Helper()
	s.Run("systemctl", "kill", "-s", name, agentUnitName)
}
