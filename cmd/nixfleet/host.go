package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

type hostCmd struct {
	List   hostListCmd   `cmd:"" help:"List the hosts."`
	Show   hostShowCmd   `cmd:"" help:"Show one host: what it runs, what it does, why it is not converged."`
	Add    hostAddCmd    `cmd:"" help:"Make all that a new host needs: its fleet entry, and a token with which it enrols."`
	Forget hostForgetCmd `cmd:"" help:"Refuse a host, hide it and free its places, until it enrols again."`
}

type hostListCmd struct {
	connection
	JSON bool `help:"As JSON."`
}

func (c *hostListCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	hosts, err := operator.List[wire.HostView](e.ctx, client, wire.PathHosts, "")
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, hosts)
	}
	writeHosts(e, hosts)
	return nil
}

type hostShowCmd struct {
	connection
	Name string `arg:"" help:"The host."`
	JSON bool   `help:"As JSON."`
}

func (c *hostShowCmd) Run(e *env) error {
	h, err := c.host(e, c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, h)
	}
	all := append(fields{{"host", h.Hostname}, {"why", h.Why}}, hostFields(e, h)...)
	all.write(e.out, e.styles)
	return nil
}

// hostFields are the facts about a host.
func hostFields(e *env, h wire.HostView) fields {
	fields := fields{{"channel", h.Channel}, {"system", h.System}, {"tags", strings.Join(h.Tags, ", ")}}
	fields.add("rollout", h.RolloutID)
	if h.RolloutID != "" {
		fields.add("wave", fmt.Sprint(h.Wave))
	}
	fields.add("state", e.styles.state(h.State)+", "+ago(h.Since))
	fields.add("conditions", strings.Join(h.Conditions, ", "))
	for _, w := range h.WaitingOn {
		fields.add("waiting", w.Sentence())
	}
	if f := h.Failure; f != nil {
		fields.add("failure", fmt.Sprintf("%s %s %s", f.Cause, f.Phase, strings.TrimSpace(f.Detail)))
	}
	if d := h.Deferral; d != nil {
		fields.add("held by", d.Gate+": "+d.Reason)
	}
	if r := h.Reject; r != nil {
		fields.add("rejected", fmt.Sprintf("%s: %s (offered again %s)", r.Reason, r.Detail, in(r.RetryAt)))
	}
	if e := h.Enrolment; e != nil {
		fields.add("enrolment", fmt.Sprintf("failed %s (%s): %s", ago(e.At), e.Kind, e.Reason))
	}
	fields.add("runs", string(h.Current))
	fields.add("target", string(h.Target))
	fields.add("prior", string(h.Prior))
	fields.add("boots into", string(h.BootDefault))
	fields.add("seen", ago(h.LastSeenAt))
	fields.add("agent", h.AgentVersion)
	fields.add("certificate", "ends "+in(h.CertificateNotAfter))
	for _, name := range slices.Sorted(maps.Keys(h.Probes)) {
		fields.add("probe "+name, string(h.Probes[name]))
	}
	return fields
}

// fields are lines of a name and a value; those without a value are left out.
type fields [][2]string

func (f *fields) add(name, value string) { *f = append(*f, [2]string{name, value}) }

func (f fields) write(w io.Writer, s styles) {
	width := 0
	for _, field := range f {
		width = max(width, len(field[0]))
	}
	for _, field := range f {
		if value := strings.TrimSpace(field[1]); value != "" {
			fmt.Fprintf(w, "%s  %s\n", s.dim.Render(fmt.Sprintf("%-*s", width, field[0])), value)
		}
	}
}
