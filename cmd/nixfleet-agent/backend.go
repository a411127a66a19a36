package main

import (
	"fmt"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
)

// open opens the machine that the agent keeps.
func (b backend) open() (host.Machine, error) {
	if dir, ok := strings.CutPrefix(string(b), "dirhost:"); ok {
		return dirhost.Open(dir, dirhost.Options{})
	}
	return nil, fmt.Errorf("--host-backend=%s: %w", b, host.ErrNotSupported)
}
