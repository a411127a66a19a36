package rollout_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
)

// TestStories runs the files of testdata/stories, which read like a log. Commands:
//
//	release ref=R          publish a release; lines declare channels, hosts, budgets, edges
//	plan                   plan and apply until nothing is left, print what was done
//	park|unpark|hear HOST… a poll waits; it ended; the host was heard
//	pass DURATION          time passes for the planner and on the wall
//	wall DURATION          time passes on the wall only: the planner was not ready
//	heartbeat HOST         a heartbeat comes: current=C boot=C seq=N
//	host NAME in=ID        events, one a line
//	reject HOST            in=ID reason=R retry=D
//	apply                  one action by line: what an operator or the core asks for
//	may-ack HOST           in=ID current=C prior=C
//	show                   the rollouts and their hosts
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := newStory(t)
		datadriven.RunTest(t, path, s.run)
	})
}

var epoch = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// story is a world and its hosts, driven by hand.
type story struct {
	w      *rollout.World
	now    time.Time
	active map[string]int64 // running time by rollout and host
}

func newStory(testing.TB) *story {
	return &story{w: rollout.NewWorld(), now: epoch, active: map[string]int64{}}
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	switch d.Cmd {
	case "release":
		rollout.Publish(s.w, s.release(t, d))
	case "plan":
		return s.plan(t)
	case "park", "unpark", "hear":
		for _, a := range d.CmdArgs {
			m := s.machine(a.Key)
			m.Seen = s.w.Ready
			m.Parked = d.Cmd == "park" || m.Parked && d.Cmd == "hear"
		}
	case "pass", "wall":
		by := duration(t, d.CmdArgs[0].Key)
		s.now = s.now.Add(by)
		if d.Cmd == "pass" {
			s.w.Ready += by
		}
	case "heartbeat":
		s.heartbeat(t, d)
	case "host":
		return s.events(t, d)
	case "reject":
		return s.apply(rollout.Rejected{
			Rollout: arg(d, "in"), Host: d.CmdArgs[0].Key, OrderID: arg(d, "order"),
			Reason: arg(d, "reason"), RetryAfter: duration(t, arg(d, "retry")),
		})
	case "apply":
		var out []string
		for _, line := range strings.Split(d.Input, "\n") {
			out = append(out, s.apply(operation(t, line)))
		}
		return strings.Join(out, "")
	case "may-ack":
		return fmt.Sprintln(rollout.MayAcknowledge(s.w, arg(d, "in"), d.CmdArgs[0].Key, lifecycle.DispatchAck{
			CurrentClosureAtDispatch: fleet.Closure(arg(d, "current")), PriorClosure: fleet.Closure(arg(d, "prior")),
		}))
	case "show":
		return s.show()
	default:
		d.Fatalf(t, "no such command")
	}
	return ""
}

func (s *story) machine(host string) *rollout.Machine {
	m := s.w.Machines[host]
	if m == nil {
		m = &rollout.Machine{}
		s.w.Machines[host] = m
	}
	return m
}

func (s *story) heartbeat(t *testing.T, d *datadriven.TestData) {
	m := s.machine(d.CmdArgs[0].Key)
	m.Seen, m.HeartbeatAt = s.w.Ready, s.w.Ready
	m.Current, m.BootDefault = fleet.Closure(arg(d, "current")), fleet.Closure(arg(d, "boot"))
	m.LastSeq = map[string]int64{}
	if seq := arg(d, "seq"); seq != "" {
		m.LastSeq[arg(d, "in")] = int64(number(t, seq))
	}
	if arg(d, "eased") != "" {
		m.Eased = s.w.Ready
	}
}

// plan plans and applies until nothing is left.
func (s *story) plan(t testing.TB) string {
	t.Helper()
	var out strings.Builder
	for range 1000 {
		actions := rollout.Plan(s.w, s.now)
		if len(actions) == 0 {
			return out.String()
		}
		for _, a := range actions {
			if err := rollout.Apply(s.w, a); err != nil {
				t.Fatalf("a planned action does not fit: %v", err)
			}
			out.WriteString(sentence(a.Body) + "\n")
		}
	}
	t.Fatalf("planning does not come to an end:\n%s", out.String())
	return ""
}

func (s *story) apply(b rollout.Body) string {
	if err := rollout.Apply(s.w, rollout.Action{At: s.now, Ready: s.w.Ready, Body: b}); err != nil {
		return err.Error() + "\n"
	}
	return ""
}

// sentence is an action as stories print it.
func sentence(b rollout.Body) string {
	switch a := b.(type) {
	case rollout.Opened:
		var out []string
		for _, n := range a.Rollouts {
			line := "opened " + n.ID
			if n.Supersedes != "" {
				line += " superseding " + n.Supersedes
			}
			out = append(out, line)
		}
		return strings.Join(out, "\n")
	case rollout.Delivered:
		line := fmt.Sprintf("delivered %s to %s", a.OrderID, a.Host)
		if a.Slotless {
			line += " without a slot"
		}
		return line
	case rollout.Skipped:
		return fmt.Sprintf("skipped %s in %s: %s", a.Host, a.Rollout, a.Reason)
	case rollout.Advanced:
		return fmt.Sprintf("advanced %s to wave %d", a.Rollout, a.Wave)
	case rollout.Halted:
		return fmt.Sprintf("halted %s by %s of %d", a.Rollout, strings.Join(a.Hosts, ", "), a.Limit)
	case rollout.Deferred:
		if a.Gate == "" {
			return fmt.Sprintf("nothing holds back %s in %s", a.Host, a.Rollout)
		}
		return fmt.Sprintf("deferred %s in %s by %s: %s", a.Host, a.Rollout, a.Gate, a.Detail)
	case rollout.Refreshed:
		return "refreshed " + a.Rollout
	case rollout.Released:
		return fmt.Sprintf("released %s of %s", a.OrderID, a.Host)
	case rollout.Signalled:
		return fmt.Sprintf("signalled %s to %s", a.OrderID, a.Host)
	case rollout.Joined:
		return fmt.Sprintf("joined %s in %s", a.Host, a.Rollout)
	case rollout.Lost:
		return fmt.Sprintf("lost %s in %s", a.Host, a.Rollout)
	case rollout.Found:
		return fmt.Sprintf("found %s in %s", a.Host, a.Rollout)
	case rollout.Moved:
		return fmt.Sprintf("%s %s", a.Kind(), a.Rollout)
	}
	return fmt.Sprintf("%s %+v", b.Kind(), b)
}

// operation reads one line of an apply.
func operation(t *testing.T, line string) rollout.Body {
	t.Helper()
	f := strings.Fields(line)
	who, why := "ada", "because"
	if f[len(f)-1] == "silently" {
		who, why = "", ""
	}
	list := func() []string { return strings.Split(f[2], ",") }
	switch f[0] {
	case "pause":
		return rollout.Paused{Channel: f[1], Who: who, Why: why}
	case "resume":
		return rollout.Resumed{Channel: f[1], Who: who, Why: why}
	case "accept":
		return rollout.Accepted{Rollout: f[1], Hosts: list(), Who: who, Why: why}
	case "rollback":
		return rollout.RolledBack{Rollout: f[1], Who: who, Why: why}
	case "skip":
		return rollout.Skipped{Rollout: f[1], Host: f[2], Reason: rollout.SkipOperator, Who: who, Why: why}
	case "advance":
		return rollout.Forced{Rollout: f[1], Wave: number(t, f[2]), Who: who, Why: why}
	case "clear":
		return rollout.QuarantineCleared{Channel: f[1], Closure: fleet.Closure(f[2]), Who: who, Why: why}
	case "forget":
		return rollout.Forgotten{Host: f[1], Who: who, Why: why}
	case "remember":
		return rollout.Remembered{Host: f[1]}
	case "recovering":
		return rollout.Recovering{Why: strings.Join(f[1:], " ")}
	case "recovered":
		return rollout.Recovered{Who: who, Why: why}
	case "prune":
		return rollout.Removed{Rollout: f[1]}
	}
	t.Fatalf("no such operation: %s", line)
	return nil
}

// release reads a release. All its documents are signed now.
//
//	channel NAME [policy…]
//	host NAME channel=C [wave=N] [closure=X|none]
//	budget hosts=a,b max=N|pct=N [by=all|channel|tags|tags-any|none]
//	edge|channel-edge FIRST THEN
//	no-manifest CHANNEL
func (s *story) release(t *testing.T, d *datadriven.TestData) *rollout.Release {
	t.Helper()
	ref, attempt := arg(d, "ref"), 1
	if a := arg(d, "attempt"); a != "" {
		attempt = number(t, a)
	}
	b := newBuilder(ref, attempt, s.now)
	for _, line := range strings.Split(d.Input, "\n") {
		f := strings.Fields(line)
		opts := map[string]string{}
		for _, o := range f[1:] {
			k, v, _ := strings.Cut(o, "=")
			opts[k] = v
		}
		switch f[0] {
		case "channel":
			b.channel(f[1], func(p *fleet.Policy) { setPolicy(t, p, opts) })
			if w := opts["window"]; w != "" {
				c := b.rel.Fleet.Channels[f[1]]
				c.FreshnessWindow = number(t, w)
				b.rel.Fleet.Channels[f[1]] = c
			}
		case "host":
			closure := fleet.Closure(f[1] + "-" + ref)
			if c := opts["closure"]; c != "" {
				closure = fleet.Closure(c)
			}
			wave := 0
			if o := opts["wave"]; o != "" {
				wave = number(t, o)
			}
			b.host(f[1], opts["channel"], wave, closure)
		case "budget":
			hosts := strings.Split(opts["hosts"], ",")
			budget := fleet.Budget{Selector: selector(opts), Hosts: hosts}
			if m := opts["max"]; m != "" {
				budget.MaxInFlight = ptr(number(t, m))
			}
			if m := opts["pct"]; m != "" {
				budget.MaxInFlightPct = ptr(number(t, m))
			}
			b.budgets = append(b.budgets, budget)
		case "edge":
			b.edges = append(b.edges, fleet.Edge{Gates: f[1], Gated: f[2]})
		case "channel-edge":
			b.channelEdges = append(b.channelEdges, fleet.Edge{Gates: f[1], Gated: f[2]})
		case "no-manifest":
			b.missing = append(b.missing, f[1])
		default:
			t.Fatalf("no such declaration: %s", line)
		}
	}
	return b.build()
}

// selector is what a budget calls its hosts: by=all, by=tag and the like.
func selector(opts map[string]string) fleet.Selector {
	switch by := opts["by"]; by {
	case "":
		return fleet.Selector{Hosts: strings.Split(opts["hosts"], ",")}
	case "all":
		return fleet.Selector{All: true}
	case "channel":
		return fleet.Selector{Channel: &by}
	case "tags":
		return fleet.Selector{Tags: []string{"web", "eu"}}
	case "tags-any":
		return fleet.Selector{TagsAny: []string{"web", "db"}}
	}
	return fleet.Selector{}
}

func setPolicy(t *testing.T, p *fleet.Policy, opts map[string]string) {
	for k, v := range opts {
		switch k {
		case "halt-after":
			p.HaltAfter = fleet.HaltAfter{Hosts: number(t, v)}
		case "halt-pct":
			p.HaltAfter = fleet.HaltAfter{Pct: number(t, v)}
		case "on-health-failure":
			p.OnHealthFailure = v
		case "on-new-release":
			p.OnNewRelease = v
		case "reboot":
			p.Reboot = v
		case "deferred-advances":
			p.DeferredAdvances = true
		}
	}
}

// events steps what a host does.
func (s *story) events(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var out strings.Builder
	for _, line := range strings.Split(d.Input, "\n") {
		f := strings.Fields(line)
		if err := s.event(arg(d, "in"), d.CmdArgs[0].Key, f[0], f[1:]...); err != nil {
			fmt.Fprintf(&out, "%s: %v\n", line, err)
		}
	}
	return out.String()
}

// event does one thing that a host does, by the events that it takes.
func (s *story) event(id, host, what string, args ...string) error {
	r := s.w.Rollouts[id]
	h := r.Host(host)
	old := fleet.Closure(host + "-old")
	if h.Prior != "" {
		old = h.Prior
	}
	var bodies []lifecycle.Body
	after := int64(1)
	switch what {
	case "ack":
		at, prior := old, old
		if len(args) > 0 {
			at, prior = fleet.Closure(args[0]), fleet.Closure(args[0])
		}
		bodies = append(bodies, lifecycle.DispatchAck{CurrentClosureAtDispatch: at, PriorClosure: prior, TargetClosure: h.Target})
	case "start":
		if len(args) > 0 {
			old = fleet.Closure(args[0])
		}
		bodies = append(bodies, lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: old, BootID: "b1"})
	case "live":
		bodies = append(bodies, lifecycle.ActivationCompleted{ObservedCurrentClosure: h.Target, BootID: "b1"})
	case "booted":
		bodies = append(bodies, lifecycle.ActivationCompleted{ObservedCurrentClosure: h.Target, BootID: "b2"})
	case "staged":
		bodies = append(bodies, lifecycle.ActivationDeferred{Component: "kernel"})
	case "probe":
		bodies = append(bodies,
			lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{{ProbeName: "http", Kind: "http", Mode: lifecycle.Enforce}}},
			lifecycle.ProbeResult{ProbeName: "http", Mode: lifecycle.Enforce, Status: lifecycle.Status(args[0])})
	case "result":
		bodies = append(bodies, lifecycle.ProbeResult{ProbeName: "http", Mode: lifecycle.Enforce, Status: lifecycle.Status(args[0])})
	case "converge":
		after += int64(h.SoakSecs)
		if !h.Declared {
			bodies = append(bodies, lifecycle.ProbeTopologyDeclared{})
		}
		bodies = append(bodies, lifecycle.Confirmed{Via: "control-plane", BootID: h.BootID},
			lifecycle.Persisted{Generation: 2, BootDefaultVerified: true},
			lifecycle.HasConverged{CurrentClosure: h.Target, SoakedSecs: int64(h.SoakSecs)})
	case "fetch-failed":
		bodies = append(bodies, lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhaseFetch})
	case "switch-failed":
		bodies = append(bodies, lifecycle.ActivationFailed{ExitCode: 1, Phase: lifecycle.PhaseSwitch, Mutated: true})
	case "give-up":
		bodies = append(bodies, lifecycle.GaveUp{FailingProbes: []string{"http"}, Cause: lifecycle.CauseProbes})
	case "reverted":
		bodies = append(bodies, lifecycle.RollbackComplete{RevertedToClosure: old})
	case "superseded":
		bodies = append(bodies, lifecycle.WasSuperseded{By: args[0]})
	case "signal":
		id := ""
		if h.Signal != nil {
			id = h.Signal.ID
		}
		bodies = append(bodies, lifecycle.RollbackSignal{OrderID: id, Obeyed: args[0] == "obeyed"})
	default:
		return fmt.Errorf("no such event")
	}
	for _, b := range bodies {
		if err := s.step(h, b, after); err != nil {
			return err
		}
		after = 0
	}
	return nil
}

// step is what the core does with an event.
func (s *story) step(h *rollout.HostRow, b lifecycle.Body, after int64) error {
	key := h.Rollout + " " + h.Hostname
	s.active[key] += after
	next, err := lifecycle.Step(h.Host, lifecycle.Event{Seq: h.Seq + 1, Active: s.active[key], At: s.now, Body: b})
	m := s.machine(h.Hostname)
	m.Seen = s.w.Ready
	if err != nil {
		b = nil
	}
	if missing := rollout.Record(s.w, next, b); missing != nil {
		return missing
	}
	return err
}

// show prints the rollouts by opening and their hosts.
func (s *story) show() string {
	var rs []*rollout.Rollout
	for _, r := range s.w.Rollouts {
		rs = append(rs, r)
	}
	slices.SortFunc(rs, func(a, b *rollout.Rollout) int { return int(a.Opening - b.Opening) })
	var out strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&out, "%s %s, wave %d\n", r.ID, r.State, r.Wave)
		for i := range r.Hosts {
			fmt.Fprintf(&out, "  %s\n", describe(&r.Hosts[i]))
		}
	}
	return out.String()
}

func describe(h *rollout.HostRow) string {
	words := []string{h.Hostname, string(h.State)}
	if h.Skip != nil {
		words = append(words, "skipped: "+string(h.Skip.Reason))
	}
	if h.Lost != nil {
		words = append(words, "lost")
	}
	if h.Accepted != nil {
		words = append(words, "accepted")
	}
	if h.Order != nil {
		words = append(words, "ordered")
	}
	if h.Reject != nil {
		words = append(words, "rejected: "+h.Reject.Reason)
	}
	if h.Signal != nil {
		words = append(words, "signal")
	}
	return strings.Join(words, ", ")
}

func arg(d *datadriven.TestData, key string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return ""
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	if s == "" {
		return 0
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ptr[T any](v T) *T { return &v }
