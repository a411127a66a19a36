package main

import (
	"cmp"
	"fmt"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// whyCmd answers for one host why it is not converged, from what the control plane
// knows: also for one that is silent.
type whyCmd struct {
	connection
	Name string `arg:"" help:"The host."`
	JSON bool   `help:"As JSON, as nixfleet host show."`
}

func (c *whyCmd) Run(e *env) error {
	h, err := c.host(e, c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, h)
	}
	fmt.Fprintf(e.out, "%s: %s\n\n", h.Hostname, sentence(h))
	facts := hostFields(e, h)
	facts.write(e.out, e.styles)
	return nil
}

// sentence is the host's why, or that there is none.
func sentence(h wire.HostView) string {
	well := fmt.Sprintf("It is %s.", h.State)
	if h.State == lifecycle.Converged {
		well = fmt.Sprintf("It is converged on %s, %s.", short(h.Target), ago(h.Since))
	}
	return cmp.Or(h.Why, well)
}

// host asks for one host.
func (c *connection) host(e *env, name string) (wire.HostView, error) {
	client, err := c.client()
	if err != nil {
		return wire.HostView{}, err
	}
	defer client.Close()
	h, err := operator.Get[wire.HostView](e.ctx, client, wire.Fill(wire.PathHost, name))
	if err != nil {
		return h, notFound(err, "there is no host %s; nixfleet host list names them", name)
	}
	return h, nil
}
