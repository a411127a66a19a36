// Package lab boots real hosts: systemd as PID 1 under systemd-nspawn, a real
// Nix store on a disk of its own, real D-Bus, real reboots.
//
// The whole lab lives in mount, process and network namespaces that the test
// binary makes for itself, so that its mounts, bridges and processes are gone
// when it is gone, however it ends. It needs root and the packages that
// scripts/deps installs; the base system that the hosts share is made by
// scripts/lab-base.
//
// A host's disk is an ext4 image over the shared base, and its boot loader is a
// line in /boot/default-system that names the system to boot.
package lab
