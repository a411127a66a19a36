package main

import (
	"fmt"

	"nixfleet/internal/wire"
)

type hostForgetCmd struct {
	connection
	Name string `arg:"" help:"The host."`
	Why  string `required:"" placeholder:"TEXT" help:"The reason, kept in the audit log."`
}

// Help is shown by --help.
func (c *hostForgetCmd) Help() string {
	return "The control plane refuses what the host was given until now, leaves it out of lists and waits for it no longer. The host itself is not touched. A new token (nixfleet host add) enrols it again. A key that was stolen is refused for good by nixfleet revoke."
}

func (c *hostForgetCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Post(e.ctx, wire.Fill(wire.PathHostForget, c.Name), wire.ActionRequest{Why: c.Why}, nil); err != nil {
		return notFound(err, "there is no host %s; nixfleet host list names them", c.Name)
	}
	_, err = fmt.Fprintf(e.out, "%s is forgotten: its certificates and tokens are refused until it is enrolled again; take it out of the fleet document too\n", c.Name)
	return err
}
