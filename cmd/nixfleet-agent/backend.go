package main

import (
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/backend"
)

// open opens the machine that the agent keeps.
func (k kind) open() (host.Machine, error) { return backend.Open(string(k), backend.Options{}) }
