package backend

import (
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/nixos"
)

func openNixOS() (host.Machine, error) {
	m, err := nixos.Open(nixos.Options{})
	if err != nil {
		return nil, err
	}
	return m, nil
}
