package main

import (
	"fmt"

	"nixfleet/internal/buildinfo"
	"nixfleet/internal/controlplane"
)

type versionCmd struct {
	database `embed:""`
	Schema   bool `help:"Show the version of the database's schema instead."`
}

func (c *versionCmd) Run(e *env) error {
	if c.Schema {
		v, err := controlplane.Schema(e.ctx, c.DB)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(e.out, v)
		return err
	}
	_, err := fmt.Fprintf(e.out, "nixfleet-control-plane %s\n", buildinfo.Version())
	return err
}
