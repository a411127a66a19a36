package main

import (
	"fmt"

	"nixfleet/internal/controlplane"
)

// rebuildCmd folds the log anew.
type rebuildCmd struct {
	database `embed:""`
}

func (c *rebuildCmd) Run(e *env) error {
	if err := controlplane.Rebuild(e.ctx, c.DB); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.out, "rebuilt")
	return err
}
