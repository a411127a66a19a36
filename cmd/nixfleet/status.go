package main

import (
	"fmt"
	"strings"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

type statusCmd struct {
	connection
	Host string `arg:"" optional:"" help:"Only this host, with all that is known of it."`
	JSON bool   `help:"As JSON."`
}

func (c *statusCmd) Run(e *env) error {
	if c.Host != "" {
		show := hostShowCmd{connection: c.connection, Name: c.Host, JSON: c.JSON}
		return show.Run(e)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	channels, err := operator.List[wire.ChannelView](e.ctx, client, wire.PathChannels, "")
	if err != nil {
		return err
	}
	hosts, err := operator.List[wire.HostView](e.ctx, client, wire.PathHosts, "")
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, struct {
			Channels []wire.ChannelView `json:"channels"`
			Hosts    []wire.HostView    `json:"hosts"`
		}{channels, hosts})
	}
	writeChannels(e, channels)
	fmt.Fprintln(e.out)
	writeHosts(e, hosts)
	return nil
}

func writeHosts(e *env, hosts []wire.HostView) {
	t := table{header: []string{"HOST", "CHANNEL", "STATE", "RUNS", "TARGET", "SEEN", "WHY"}}
	for _, h := range hosts {
		why := h.Why
		if why == "" {
			why = strings.Join(h.Conditions, ", ")
		}
		t.row(h.Hostname, h.Channel, e.styles.state(h.State), short(h.Current), short(h.Target), ago(h.LastSeenAt), why)
	}
	t.write(e.out, e.styles)
}

func writeChannels(e *env, channels []wire.ChannelView) {
	t := table{header: []string{"CHANNEL", "ROLLOUT", "STATE", "CONVERGED", "STALE", "WHY"}}
	for _, ch := range channels {
		why := ch.Why
		if ch.Paused != nil {
			why = fmt.Sprintf("paused by %s: %s", ch.Paused.Who, ch.Paused.Why)
		}
		t.row(ch.Channel, shortID(ch.RolloutID), e.styles.rolloutState(ch.State), fmt.Sprintf("%d/%d", ch.Converged, ch.Hosts), in(ch.StaleAt), why)
	}
	t.write(e.out, e.styles)
}

// state is a host's state as a word, in the colour of how good it is.
func (p styles) state(s lifecycle.State) string {
	switch s {
	case "":
		return p.dim.Render("–")
	case lifecycle.Converged:
		return p.good.Render(string(s))
	case lifecycle.Failed, lifecycle.Reverted:
		return p.bad.Render(string(s))
	case lifecycle.Pending, lifecycle.Superseded:
		return p.dim.Render(string(s))
	}
	return p.busy.Render(string(s))
}

// short is a closure without most of its hash: what a person tells apart.
func short(c fleet.Closure) string {
	if c == "" {
		return "–"
	}
	hash, name, found := strings.Cut(string(c), "-")
	if !found || len(hash) < 6 {
		return string(c)
	}
	return hash[:6] + "-" + name
}

// shortID is a rollout id with at most twelve digits of its ref.
func shortID(id string) string {
	if id == "" {
		return "–"
	}
	channel, ref, _ := strings.Cut(id, "@")
	ref, attempt, again := strings.Cut(ref, ".")
	out := channel + "@" + ref[:min(len(ref), 12)]
	if again {
		out += "." + attempt
	}
	return out
}

// ago is how long ago something was, for people.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return round(time.Since(t)) + " ago"
}

// in is how long until something is, for people.
func in(t time.Time) string {
	switch d := time.Until(t); {
	case t.IsZero():
		return "–"
	case d < 0:
		return "since " + round(-d)
	default:
		return "in " + round(d)
	}
}

func round(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}
