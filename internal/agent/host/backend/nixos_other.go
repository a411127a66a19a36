//go:build !linux

package backend

import (
	"errors"

	"nixfleet/internal/agent/host"
)

func openNixOS() (host.Machine, error) {
	return nil, errors.New("this machine runs no NixOS")
}
