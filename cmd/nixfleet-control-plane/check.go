package main

import (
	"fmt"

	"nixfleet/internal/controlplane"
)

// checkCmd looks at everything that serve would need.
type checkCmd struct {
	settings `embed:""`
}

func (c *checkCmd) Run(e *env) error {
	if err := controlplane.Check(e.ctx, c.config(e)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.out, "settings, files and database are good")
	return err
}
