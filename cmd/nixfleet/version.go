package main

import (
	"fmt"
	"runtime"

	"nixfleet/internal/buildinfo"
	"nixfleet/internal/wire"
)

type versionCmd struct {
	JSON bool `help:"As a JSON object."`
}

func (c *versionCmd) Run(e *env) error {
	v := buildinfo.Version()
	if c.JSON {
		return writeJSON(e.out, map[string]any{"version": v, "protocol": wire.ProtocolVersion, "go": runtime.Version()})
	}
	_, err := fmt.Fprintf(e.out, "nixfleet %s\n", v)
	return err
}
