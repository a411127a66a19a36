package main

import (
	"fmt"

	"nixfleet/internal/buildinfo"
)

type versionCmd struct{}

func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintf(e.out, "nixfleet-agent %s\n", buildinfo.Version())
	return err
}
