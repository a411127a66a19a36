// Package nixos is a host that runs NixOS: real Nix fetches, real systemd runs
// units, the boot loader is read back.
//
// It promises what host.Machine promises, on systemd 252 and later and Nix 2.8
// and later. It needs root, systemd's private socket, and the programs of Nix
// and journalctl. It never runs anything through a shell, never infers from a
// directory that a path is valid, never takes the switch lock, and reads a unit's
// result before its exit code.
package nixos
