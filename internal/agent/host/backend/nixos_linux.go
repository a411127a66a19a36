package backend

import (
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/nixos"
)

func openNixOS() (host.Machine, error) { return nixos.Open(nixos.Options{}) }
