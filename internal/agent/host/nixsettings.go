package host

import "context"

// NixSettings are those of the machine's Nix that matter to a fetch, as everybody
// on it gets them.
type NixSettings struct {
	Substituters []string // binary caches, in Nix's order
	RequireSigs  bool
}

// HasNix is a Machine whose store is that of Nix.
type HasNix interface {
	NixSettings(ctx context.Context) (NixSettings, error)
}
