// Package nix speaks Nix's formats: store paths, narinfo files and their
// signatures, NAR archives, and the binary caches that are made of them.
//
// It promises that a NAR is unpacked nowhere but below the place that was named,
// and that nothing which a Client returns came from elsewhere than the holder of
// one of its keys. It needs a caller that says which keys those are. It never
// runs a Nix program and never touches a real Nix store.
//
// Store paths are handled by their base name, "<32 characters>-<name>".
package nix
