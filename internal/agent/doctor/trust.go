package doctor

import (
	"context"
	"strings"

	"nixfleet/internal/trust"
)

// trustFile is the pinned keys, without which nothing is believed.
type trustFile struct{ path string }

func (trustFile) name() string { return "trust-file" }

func (c trustFile) look(context.Context) Finding {
	roots, err := trust.LoadRoots(c.path)
	switch {
	case err != nil:
		return wrong("take trust.json of the fleet's folder (nixfleet init made it) into this host's system, or name it with --trust-file", "%v", err)
	case len(roots.Warnings) > 0:
		return wrong("spell the fields as the fleet's trust.json does, or take them out", "%s: %s", c.path, strings.Join(roots.Warnings, "; "))
	case len(roots.CacheKeys) == 0:
		return wrong("pin the binary cache's public key in cacheKeys", "%s pins no cache keys, so no new target can be fetched", c.path)
	case len(roots.IssuanceCAPems) == 0:
		return wrong("pin the authority that issues agents' certificates in issuanceCaPems", "%s pins no issuing authority, so no certificate is taken", c.path)
	}
	return well("%s pins the keys of releases, caches and certificates", c.path)
}
