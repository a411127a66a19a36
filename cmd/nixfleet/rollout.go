package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

type rolloutCmd struct {
	List   rolloutListCmd   `cmd:"" help:"List the rollouts, newest first."`
	Show   rolloutShowCmd   `cmd:"" help:"Show a rollout: its waves, its hosts, what holds it."`
	Events rolloutEventsCmd `cmd:"" help:"List what the hosts of a rollout reported."`
	Wait   rolloutWaitCmd   `cmd:"" help:"Wait until a rollout has ended: exit 0 finished, 1 halted or superseded, 3 timeout."`
}

type rolloutListCmd struct {
	connection
	JSON bool `help:"As JSON."`
}

func (c *rolloutListCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	rollouts, err := operator.List[wire.RolloutView](e.ctx, client, wire.PathRollouts, "")
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, rollouts)
	}
	t := table{header: []string{"ROLLOUT", "STATE", "WAVE", "HOSTS", "OPENED", "WHY"}}
	for _, r := range rollouts {
		t.row(r.RolloutID, e.styles.rolloutState(r.State), wave(r), counts(r.ByState), ago(r.OpenedAt), r.Why)
	}
	t.write(e.out, e.styles)
	return nil
}

type rolloutShowCmd struct {
	connection
	ID   string `arg:"" name:"rollout" help:"The rollout's id."`
	JSON bool   `help:"As JSON."`
}

func (c *rolloutShowCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := operator.Get[wire.RolloutLifecycle](e.ctx, client, wire.Fill(wire.PathRolloutLifecycle, c.ID))
	if err != nil {
		return notFound(err, "there is no rollout %s; nixfleet rollout list names them", c.ID)
	}
	hosts, err := operator.List[wire.RolloutHost](e.ctx, client, wire.Fill(wire.PathRolloutHosts, c.ID), "")
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, struct {
			wire.RolloutLifecycle
			HostList []wire.RolloutHost `json:"hostList"`
		}{r, hosts})
	}
	f := fields{{"rollout", r.RolloutID}, {"state", e.styles.rolloutState(r.State) + ", " + ago(r.Since)}, {"wave", wave(r.RolloutView)}}
	f.add("why", r.Why)
	if r.Paused != nil {
		f.add("paused", fmt.Sprintf("by %s: %s", r.Paused.Who, r.Paused.Why))
	}
	f.add("plan", r.PlanHash)
	f.add("stale", in(r.StaleAt))
	f.write(e.out, e.styles)
	fmt.Fprintln(e.out)
	t := table{header: []string{"WAVE", "HOST", "STATE", "SINCE", "TARGET", "WHY"}}
	for _, h := range hosts {
		t.row(strconv.Itoa(h.Wave), h.Hostname, e.styles.state(h.State), ago(h.Since), short(h.Target), hostWhy(h))
	}
	t.write(e.out, e.styles)
	return nil
}

// hostWhy is why a host of a rollout is not further.
func hostWhy(h wire.RolloutHost) string {
	switch {
	case h.Failure != nil:
		return strings.TrimSpace(fmt.Sprintf("%s %s", h.Failure.Cause, firstLine(h.Failure.Detail)))
	case h.Reject != nil:
		return fmt.Sprintf("rejects it: %s", h.Reject.Reason)
	case h.Deferral != nil:
		return h.Deferral.Gate + ": " + h.Deferral.Reason
	}
	return strings.Join(h.Conditions, ", ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

type rolloutEventsCmd struct {
	connection
	ID   string `arg:"" name:"rollout" help:"The rollout's id."`
	JSON bool   `help:"As JSON."`
}

func (c *rolloutEventsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	events, err := operator.List[wire.EventView](e.ctx, client, wire.Fill(wire.PathRolloutEvents, c.ID), "")
	if err != nil {
		return notFound(err, "there is no rollout %s; nixfleet rollout list names them", c.ID)
	}
	if c.JSON {
		return writeJSON(e.out, events)
	}
	t := table{header: []string{"RECEIVED", "HOST", "SEQ", "KIND", "VERDICT", "WHAT"}}
	for _, ev := range events {
		t.row(ev.ReceivedAt.Local().Format(time.DateTime), ev.Hostname, strconv.FormatInt(ev.Seq, 10), string(ev.Kind), ev.Verdict, eventText(ev.Event))
	}
	t.write(e.out, e.styles)
	return nil
}

// eventText is what is particular to an event, on one line.
func eventText(raw json.RawMessage) string {
	event, err := wire.DecodeEvent(raw)
	if err != nil {
		return err.Error()
	}
	switch b := event.Body.(type) {
	case lifecycle.DispatchAck:
		return short(b.TargetClosure)
	case lifecycle.ActivationStarted:
		return b.SwitchMethod + " from " + short(b.PriorClosure)
	case lifecycle.ActivationCompleted:
		return fmt.Sprintf("runs %s, exit %d", short(b.ObservedCurrentClosure), b.ExitCode)
	case lifecycle.ActivationFailed:
		return fmt.Sprintf("%s, exit %d %s", b.Phase, b.ExitCode, firstLine(b.StderrTail))
	case lifecycle.ProbeResult:
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", b.ProbeName, b.Status, b.FailureReason))
	case lifecycle.GaveUp:
		return strings.TrimSpace(string(b.Cause) + " " + strings.Join(b.FailingProbes, ", "))
	case lifecycle.RollbackComplete:
		return "back on " + short(b.RevertedToClosure)
	case lifecycle.HasConverged:
		return fmt.Sprintf("soaked %d s", b.SoakedSecs)
	case lifecycle.Confirmed:
		return "via " + b.Via
	case lifecycle.Notice:
		return b.Code + ": " + b.Detail
	}
	return ""
}

type rolloutWaitCmd struct {
	connection
	ID      string        `arg:"" name:"rollout" help:"The rollout's id; it may be one that is only about to open."`
	Timeout time.Duration `default:"1h" help:"How long to wait."`
	JSON    bool          `help:"Write the rollout as JSON at the end."`
}

// waitPoll is how often a waiting operator looks.
const waitPoll = 2 * time.Second

func (c *rolloutWaitCmd) Run(e *env) error {
	if c.Timeout <= 0 {
		return wrongUse("--timeout %s: it must be more than nothing", c.Timeout)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(e.ctx, c.Timeout)
	defer cancel()
	said := ""
	say := func(text string) {
		if text != said {
			fmt.Fprintln(e.err, text)
			said = text
		}
	}
	var last *wire.RolloutLifecycle
	for {
		r, err := operator.Get[wire.RolloutLifecycle](ctx, client, wire.Fill(wire.PathRolloutLifecycle, c.ID))
		var unreachable *operator.Unreachable
		switch {
		case err == nil:
			last = &r
			say(fmt.Sprintf("%s: %s, wave %s, %s", r.RolloutID, r.State, wave(r.RolloutView), counts(r.ByState)))
			if code, ended := ending(r.State); ended {
				return c.end(e, last, code)
			}
		case errors.As(err, &unreachable), refusedForNow(err):
			say(err.Error())
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-time.After(waitPoll):
		case <-ctx.Done():
			if e.ctx.Err() != nil {
				return e.ctx.Err()
			}
			say(fmt.Sprintf("not ended after %s", c.Timeout))
			return c.end(e, last, exitTimeout)
		}
	}
}

func (c *rolloutWaitCmd) end(e *env, last *wire.RolloutLifecycle, code int) error {
	if c.JSON {
		if err := writeJSON(e.out, last); err != nil {
			return err
		}
	}
	if code == exitOK {
		return nil
	}
	return silently(code)
}

// refusedForNow tells whether asking again may help: the control plane is just
// starting, or has not seen the release yet.
func refusedForNow(err error) bool {
	var refused *wire.Error
	return errors.As(err, &refused) && (refused.Temporary() || refused.Slug == wire.SlugNotFound)
}

// ending is the exit code for a rollout that will not go on by itself.
func ending(state string) (code int, ended bool) {
	switch rollout.State(state) {
	case rollout.Terminal:
		return exitOK, true
	case rollout.Failed, rollout.Reverted, rollout.Superseded, rollout.Pruned:
		return exitNo, true
	}
	return 0, false
}

func (p styles) rolloutState(state string) string {
	code, ended := ending(state)
	switch {
	case state == "":
		return p.dim.Render("–")
	case rollout.State(state) == rollout.Superseded:
		return p.dim.Render(state)
	case !ended:
		return p.busy.Render(state)
	case code == exitOK:
		return p.good.Render(state)
	}
	return p.bad.Render(state)
}

// wave is a rollout's progress through its waves, counted from one.
func wave(r wire.RolloutView) string { return fmt.Sprintf("%d/%d", min(r.Wave+1, r.Waves), r.Waves) }

// counts says how many hosts are in which state, in the order of a rollout's
// life.
func counts(byState map[string]int) string {
	var parts []string
	for _, s := range []lifecycle.State{lifecycle.Converged, lifecycle.Soaking, lifecycle.Activating, lifecycle.Deferred, lifecycle.Pending, lifecycle.Failed, lifecycle.Reverted, lifecycle.Superseded} {
		if n := byState[string(s)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToLower(string(s))))
		}
	}
	return strings.Join(parts, ", ")
}
