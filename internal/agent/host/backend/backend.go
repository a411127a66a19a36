// Package backend opens a host by the name of its kind, as flags have it.
package backend

import (
	"context"
	"fmt"
	"net"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
)

// Names of backends. A machine in a directory is "dirhost:" and the directory.
const (
	Auto    = "auto"
	NixOS   = "nixos"
	DirHost = "dirhost:"
)

// Options are what a backend may be given beyond its name.
type Options struct {
	// Dial reaches binary caches, where the backend does that itself. Nil: a plain
	// dialler.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Open opens the host of the named kind. Auto is this machine.
func Open(name string, o Options) (host.Machine, error) {
	if dir, ok := strings.CutPrefix(name, DirHost); ok && dir != "" {
		m, err := dirhost.Open(dir, dirhost.Options{Dial: o.Dial})
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	switch name {
	case Auto, NixOS:
		return openNixOS()
	}
	return nil, fmt.Errorf("unknown kind of host %q: want %s, %s or %s<dir>", name, Auto, NixOS, DirHost)
}
