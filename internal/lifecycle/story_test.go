package lifecycle_test

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// TestStories runs the files of testdata/stories, which read like the log of a host: what
// happened on the left of the machine's and the agent's doing, and what became of
// it. The directives:
//
//	host target=newer [soak=300] [policy field]…   a host enters a rollout
//	log                                            one thing that happens a line
//	takeover rollout=r2 target=newest              a newer rollout, accepted and ready, begins
//
// A line of log is an event (its kind and its fields), or one of
//
//	machine runs=newer boots=newer boot=boot-2     what a look at the machine shows
//	wait 300                                       running time passes; Due is asked as it wants to be
//	clock +90d                                     somebody sets the clock
//	crash                                          the agent starts again from its journal
//	guard                                          the guard has gone back, and the agent starts again
//
// After each line Due is asked with a look at the machine, as the agent does.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			switch d.Cmd {
			case "host":
				s.host(d)
			case "log":
				for line := range strings.Lines(strings.TrimSpace(d.Input)) {
					s.line(strings.Fields(line))
				}
			case "takeover":
				s.takeover(d)
			default:
				t.Fatalf("%s: no directive %s", d.Pos, d.Cmd)
			}
			return s.out.String()
		})
	})
}

// story is a host, the machine below it, and the clock on its wall.
type story struct {
	t       *testing.T
	out     strings.Builder
	h       lifecycle.Host
	machine lifecycle.Observed
	active  int64
	wall    time.Time
	wanted  lifecycle.Work
}

func (s *story) host(d *datadriven.TestData) {
	policy := fleet.DefaultPolicy()
	target := "newer"
	for _, a := range d.CmdArgs {
		value := a.Vals[0]
		switch a.Key {
		case "target":
			target = value
		case "soak":
			policy.SoakSecsByWave = []int{number(s.t, value)}
		case "onHealthFailure":
			policy.OnHealthFailure = value
		case "confirm":
			policy.Confirm = value
		case "persist":
			policy.Persist = value
		case "reboot":
			policy.Reboot = value
			policy.RebootWindow = &fleet.RebootWindow{Start: "02:00", Minutes: 60}
		default:
			s.t.Fatalf("%s: no setting %s", d.Pos, a.Key)
		}
	}
	s.h = s.pending("stable@abc", fleet.Closure(target), &policy)
	s.machine = observed(older, older, "boot-1")
	s.active, s.wall = 0, noon
	s.wanted = lifecycle.Work{}
	s.say("", "%s", s.h.State)
}

func (s *story) pending(rollout string, target fleet.Closure, policy *fleet.Policy) lifecycle.Host {
	m := &fleet.Manifest{Channel: "stable", Policy: policy, HostSet: []fleet.Target{{Hostname: "web-01", TargetClosure: target}}}
	h, err := lifecycle.New("web-01", rollout, m, "plan", signedAt)
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// line lets one thing happen.
func (s *story) line(words []string) {
	args := map[string]string{}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		args[key] = value
	}
	switch words[0] {
	case "machine":
		if v, ok := args["runs"]; ok {
			s.machine.Current = fleet.Closure(v)
		}
		if v, ok := args["boots"]; ok {
			s.machine.BootDefault = fleet.Closure(v)
		}
		if v, ok := args["boot"]; ok {
			s.machine.BootID = v
		}
		s.say("", "    the machine runs %s, boots %s, %s", s.machine.Current, s.machine.BootDefault, s.machine.BootID)
	case "wait":
		s.wait(int64(number(s.t, words[1])))
	case "clock":
		days := number(s.t, strings.TrimSuffix(words[1], "d"))
		s.wall = s.wall.AddDate(0, 0, days)
		s.say("", "    somebody sets the clock by %+d days", days)
	case "crash":
		s.h = crash(s.t, s.h)
		if !reflect.DeepEqual(lifecycle.Want(s.h), s.wanted) {
			s.say("", "    after the crash other work is wanted")
		}
		s.say("", "    the agent starts again")
	case "guard":
		s.machine.Current, s.machine.BootDefault = s.h.Prior, s.h.Prior
		s.say("", "    the guard goes back to %s, the agent starts again", s.h.Prior)
		for _, b := range lifecycle.GuardActed(s.h, "the agent was silent") {
			s.commit(b)
		}
	default:
		s.commit(s.event(words[0], args))
	}
	s.settle()
}

// wait lets running time pass, and asks Due when it wants to be asked.
func (s *story) wait(left int64) {
	for left > 0 {
		pass := left
		if wait := s.settle(); wait > 0 {
			pass = min(left, int64(wait/time.Second))
		}
		s.active += pass
		s.wall = s.wall.Add(time.Duration(pass) * time.Second)
		left -= pass
	}
}

// settle commits what is due, and says when to ask again.
func (s *story) settle() time.Duration {
	for {
		look := s.machine
		body, wait := lifecycle.Due(s.h, lifecycle.Now{Active: s.active, BootID: look.BootID, Observation: &look})
		if body == nil {
			return wait
		}
		s.commit(body)
	}
}

func (s *story) commit(b lifecycle.Body) {
	before := s.h
	h, err := lifecycle.Step(s.h, lifecycle.Event{Seq: s.h.Seq + 1, Active: s.active, At: s.wall, Body: b})
	s.h = h
	event := fmt.Sprintf("#%d %s%s", h.Seq, b.Kind(), detail(b))
	if err != nil {
		s.say(event, "%v", err)
		return
	}
	state := string(h.State)
	if h.State != before.State {
		state = fmt.Sprintf("%s -> %s", before.State, h.State)
	}
	for _, f := range []struct {
		name    string
		was, is bool
	}{
		{name: "mutated", was: before.Mutated, is: h.Mutated},
		{name: "retried", was: before.Retried, is: h.Retried},
		{name: "signal pending", was: before.SignalPending, is: h.SignalPending},
		{name: "rollback owed", was: before.RollbackOwed, is: h.RollbackOwed},
	} {
		if f.is && !f.was {
			state += ", " + f.name
		}
	}
	if h.Terminal() && !before.Terminal() {
		state += ", terminal"
		if lifecycle.Quarantines(h) {
			state += ", quarantines"
		}
	}
	s.say(event, "%s", state)
	if w := lifecycle.Want(h); !reflect.DeepEqual(w, s.wanted) {
		s.wanted = w
		s.say("", "    wants %s", describe(w))
	}
}

// say writes a line of the log: wall time, running time, the event, what became
// of it.
func (s *story) say(event, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if event != "" {
		text = fmt.Sprintf("%-56s %s", event, text)
	}
	fmt.Fprintf(&s.out, "%s %6d  %s\n", s.wall.Format("Jan 02 15:04:05"), s.active, text)
}

func (s *story) takeover(d *datadriven.TestData) {
	var rollout, target string
	d.ScanArgs(s.t, "rollout", &rollout)
	d.ScanArgs(s.t, "target", &target)
	policy := s.h.Policy
	next := walk(s.t, s.pending(rollout, fleet.Closure(target), &policy), lifecycle.DispatchAck{CurrentClosureAtDispatch: s.machine.Current})
	over := lifecycle.TakeOver(&s.h, next, s.machine, lifecycle.MethodTestThenBoot)
	if over.Wait != "" {
		s.say("", "%s waits: %s", rollout, over.Wait)
		if over.Unstage != nil {
			s.say("", "    first: boot %s again", over.Unstage.To)
		}
		return
	}
	for _, b := range over.Old {
		s.commit(b)
	}
	s.say("", "%s begins", rollout)
	s.h, s.wanted, s.active = next, lifecycle.Want(next), 0
	for _, b := range over.New {
		s.commit(b)
	}
	s.settle()
}

// event makes an event of its kind and fields; what is not given is as the
// machine is.
func (s *story) event(kind string, args map[string]string) lifecycle.Body {
	get := func(key, otherwise string) string {
		if v, ok := args[key]; ok {
			return v
		}
		return otherwise
	}
	current := get("current", string(s.machine.Current))
	probe := get("probe", "web")
	mode := lifecycle.Mode(get("mode", string(lifecycle.Enforce)))
	exit := number(s.t, get("exit", "0"))
	phase := lifecycle.Phase(get("phase", ""))
	switch lifecycle.Kind(kind) {
	case lifecycle.KindDispatchAck:
		return lifecycle.DispatchAck{CurrentClosureAtDispatch: fleet.Closure(current), TargetClosure: s.h.Target, PlanHash: "plan"}
	case lifecycle.KindActivationStarted:
		return lifecycle.ActivationStarted{SwitchMethod: get("method", lifecycle.MethodTestThenBoot), PriorClosure: fleet.Closure(current),
			BootID: s.machine.BootID, BootDefaultWas: s.machine.BootDefault}
	case lifecycle.KindActivationCompleted:
		return lifecycle.ActivationCompleted{ObservedCurrentClosure: fleet.Closure(current), ExitCode: exit, BootID: s.machine.BootID}
	case lifecycle.KindActivationDeferred:
		return lifecycle.ActivationDeferred{Component: get("component", "kernel")}
	case lifecycle.KindActivationFailed:
		return lifecycle.ActivationFailed{ExitCode: exit, Phase: phase, Mutated: get("mutated", "false") == "true"}
	case lifecycle.KindProbeTopologyDeclared:
		return lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{{ProbeName: probe, Kind: "http", Mode: mode}}}
	case lifecycle.KindProbeResult:
		return lifecycle.ProbeResult{ProbeName: probe, Mode: mode, Status: lifecycle.Status(get("status", "pass"))}
	case lifecycle.KindConfirmed:
		return lifecycle.Confirmed{Via: get("via", "control-plane"), BootID: s.machine.BootID}
	case lifecycle.KindPersisted:
		s.machine.BootDefault = s.h.Target
		return lifecycle.Persisted{Generation: 42, BootDefaultVerified: true}
	case lifecycle.KindPersistFailed:
		return lifecycle.PersistFailed{Phase: phase, ExitCode: exit}
	case lifecycle.KindRollbackComplete:
		return lifecycle.RollbackComplete{RevertedToClosure: fleet.Closure(current)}
	case lifecycle.KindRollbackFailed:
		return lifecycle.RollbackFailed{Phase: phase, ExitCode: exit, BootRequired: get("bootRequired", "false") == "true"}
	case lifecycle.KindRollbackSignal:
		return lifecycle.AnswerSignal(s.h, "order-7", get("reason", "operator"))
	case lifecycle.KindRebootStarted:
		return lifecycle.RebootStarted{Reason: get("reason", lifecycle.RebootDeferred)}
	case lifecycle.KindSuperseded:
		return lifecycle.WasSuperseded{By: get("by", "stable@def")}
	case lifecycle.KindConverged:
		return lifecycle.HasConverged{CurrentClosure: fleet.Closure(current)}
	case lifecycle.KindNotice:
		return lifecycle.Notice{Code: get("code", lifecycle.NoticeGuardActed)}
	}
	s.t.Fatalf("no event %s", kind)
	return nil
}

// detail is what a reader wants to know of an event beside its kind.
func detail(b lifecycle.Body) string {
	switch b := b.(type) {
	case lifecycle.GaveUp:
		return fmt.Sprintf("{%s, %d s}", b.Cause, b.SustainedDurationSecs)
	case lifecycle.ActivationFailed:
		return fmt.Sprintf("{%s}", b.Phase)
	case lifecycle.ProbeResult:
		return fmt.Sprintf("{%s %s}", b.ProbeName, b.Status)
	case lifecycle.Observed:
		return fmt.Sprintf("{%s, boots %s, %s}", b.Current, b.BootDefault, b.BootID)
	case lifecycle.HasConverged:
		return fmt.Sprintf("{%d s}", b.SoakedSecs)
	case lifecycle.RollbackSignal:
		return fmt.Sprintf("{obeyed %v}", b.Obeyed)
	case lifecycle.ActivationStarted:
		return fmt.Sprintf("{%s, prior %s}", b.SwitchMethod, b.PriorClosure)
	case lifecycle.HealthChanged:
		return fmt.Sprintf("{healthy %v, drifted %v, %d flaps}", b.Healthy, b.Drifted, b.Flaps)
	}
	return ""
}

// describe writes work as a person would.
func describe(w lifecycle.Work) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if w.Fetch != nil {
		add("fetch %s", w.Fetch.Target)
	}
	if w.Switch != nil {
		add("switch to %s", w.Switch.Target)
	}
	if w.Rollback != nil && w.Rollback.BootOnly {
		add("boot %s again", w.Rollback.To)
	} else if w.Rollback != nil {
		add("rollback to %s", w.Rollback.To)
	}
	if w.Reboot != nil {
		reboot := "reboot (" + w.Reboot.Reason + ")"
		if w.Reboot.Window != nil {
			reboot += " in the window"
		}
		if w.Reboot.NotBefore > 0 {
			reboot += fmt.Sprintf(" not before %d", w.Reboot.NotBefore)
		}
		add("%s", reboot)
	}
	if w.Probes {
		add("probes")
	}
	if w.Confirm {
		add("confirm")
	}
	if w.Persist != nil && w.Persist.NotBefore > 0 {
		add("persist not before %d", w.Persist.NotBefore)
	} else if w.Persist != nil {
		add("persist")
	}
	switch g := w.Guard; {
	case g == nil:
	case g.BootOnly:
		add("guard at boot")
	case g.ConfirmBy > 0:
		add("guard to confirm by %d", g.ConfirmBy)
	default:
		add("guard")
	}
	if len(w.Roots) > 0 {
		roots := make([]string, len(w.Roots))
		for i, r := range w.Roots {
			roots[i] = string(r)
		}
		slices.Sort(roots)
		add("roots %s", strings.Join(roots, "+"))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
