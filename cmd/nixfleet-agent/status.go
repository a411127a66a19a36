package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/wire"
)

// watchEvery is how often status --watch asks again.
const watchEvery = 2 * time.Second

// statusCmd asks the agent on this host.
type statusCmd struct {
	Socket string `default:"/run/nixfleet-agent/agent.sock" placeholder:"FILE" help:"The agent's socket."`
	JSON   bool   `help:"As JSON."`
	Watch  bool   `help:"Again and again, until interrupted."`
}

func (c *statusCmd) Run(e *env) error {
	for {
		raw, err := ask(e.ctx, c.Socket, http.MethodGet, agent.SocketStatus, nil)
		if err != nil {
			return err
		}
		if err := c.show(e.out, raw); err != nil || !c.Watch {
			return err
		}
		select {
		case <-time.After(watchEvery):
			fmt.Fprintln(e.out)
		case <-e.ctx.Done():
			return nil
		}
	}
}

func (c *statusCmd) show(out io.Writer, raw []byte) error {
	if c.JSON {
		_, err := out.Write(raw)
		return err
	}
	var s agent.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return print(out, s)
}

// print writes a status for a person.
func print(out io.Writer, s agent.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	row("host", "%s (agent %s)", s.MachineID, s.Version)
	row("runs", "%s", cmp.Or(string(s.Current), "no system of the store"))
	row("boots into", "%s", cmp.Or(string(s.BootDefault), "not known"))
	if s.Rollout == "" {
		row("rollout", "none yet")
	} else {
		row("rollout", "%s", s.Rollout)
		row("state", "%s since %s", s.State, moment(s.Since))
		if s.Phase != "" {
			row("busy with", "%s", s.Phase)
		}
		if f := s.Fetched; f != nil {
			row("fetched", "%s", fetched(*f))
		}
		if !s.Deadline.IsZero() {
			row("until", "%s", moment(s.Deadline))
		}
		row("target", "%s", s.Target)
		row("prior", "%s", s.Prior)
	}
	if s.Failure != nil {
		row("failed", "%s %s %s", s.Failure.Cause, s.Failure.Phase, s.Failure.Detail)
	}
	if s.Next != "" {
		row("next", "%s", s.Next)
	}
	if len(s.WaitingOn) == 0 {
		row("waiting", "not waiting for anything")
	}
	waiting(s.WaitingOn, row)
	for _, p := range s.Probes {
		status := string(p.Status)
		if status == "" {
			status = "no result yet"
		}
		reason := ""
		if p.Last != nil {
			reason = p.Last.Reason
		}
		row("probe "+p.Name, "%s (%s) %s", status, p.Mode, reason)
	}
	if s.Hold != nil {
		row("held", "since %s until %s: %s", moment(s.Hold.Since), moment(s.Hold.Until), s.Hold.Reason)
	}
	if s.Refused != nil {
		row("refused", "%s at %s: %s", s.Refused.Rollout, moment(s.Refused.At), s.Refused.Detail)
	}
	for _, q := range s.Quarantine {
		row("quarantined", "%s until %s: %s, in %s; failed here %s", q.Closure, moment(q.Until), q.Why, q.Rollout, times(q.Count))
	}
	if s.CertificateNotAfter.IsZero() {
		row("certificate", "none that can be used")
	} else {
		row("certificate", "until %s", moment(s.CertificateNotAfter))
	}
	row("control plane", "%s, last answer %s", s.ControlPlane, moment(s.ControlPlaneSeenAt))
	row("clock", "%s", clock(s))
	row("outbox", "%d events to send, %d refused", s.OutboxDepth, len(s.DeadLetters))
	for _, raw := range s.Events {
		var head struct {
			Seq  int64  `json:"seq"`
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(raw, &head); err != nil {
			return fmt.Errorf("read the agent's answer: %w", err)
		}
		row("event", "%d %s", head.Seq, head.Kind)
	}
	return w.Flush()
}

// waiting writes what is waited for, the same thing once however many parts of the
// agent wait for it, and below it why each does.
func waiting(all []agent.Waiting, row func(name, format string, args ...any)) {
	var order []wire.WaitingOn
	of := map[wire.WaitingOn][]agent.Waiting{}
	for _, w := range all {
		if of[w.On] == nil {
			order = append(order, w.On)
		}
		of[w.On] = append(of[w.On], w)
	}
	for _, on := range order {
		sentence := on.Sentence()
		if on == wire.WaitingOnNone { // there is an error, and no name for what would end it
			sentence = "Trying again what did not succeed."
		}
		since := slices.MinFunc(of[on], func(a, b agent.Waiting) int { return a.Since.Compare(b.Since) }).Since
		row("waiting", "%s Since %s.", sentence, moment(since))
		for _, w := range of[on] {
			if w.Why == "" {
				continue
			}
			why := w.Why
			if w.Worker != "" {
				why = w.Worker + ": " + why
			}
			row("", "  %s", why)
		}
	}
}

// fetched is how far a fetch has come.
func fetched(p host.FetchProgress) string {
	text := fmt.Sprintf("%d store paths so far", p.Paths)
	if p.Bytes > 0 {
		text += fmt.Sprintf(", %.1f MiB", float64(p.Bytes)/(1<<20))
	}
	return text
}

// oneLine makes one line of text that may come from anybody: lines are joined, and
// nothing of it commands a terminal.
func oneLine(text string) string {
	text = strings.ReplaceAll(strings.TrimRight(text, "\n "), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// clock says whether the clock is believed, and how far it is from the control
// plane's.
func clock(s agent.Status) string {
	text := "not synchronised"
	if s.ClockSynchronised {
		text = "synchronised"
	}
	if !s.ControlPlaneSeenAt.IsZero() { // else nothing was compared
		text += fmt.Sprintf(", %s from the control plane's", time.Duration(s.ClockOffsetMs)*time.Millisecond)
	}
	if s.ClockSkewed {
		text += ", which is too far: one of them is wrong"
	}
	if s.ClockSuspect != "" {
		text += "; suspect: " + s.ClockSuspect
	}
	return text
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
