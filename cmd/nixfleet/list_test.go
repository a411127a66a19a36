package main

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
)

// Hosts that are added at once are all allowed; a token that has expired goes, and
// what else stands in the list stays.
func TestHostsThatAreAllowedAtOnceAllAre(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nonces.json")
	now := time.Now().UTC().Truncate(time.Second)
	if err := allow(path, fleet.Nonce{Nonce: "expired", Hostname: "web-00", ExpiresAt: now.Add(-time.Second)}, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	const hosts = 16
	var group errgroup.Group
	for range hosts {
		group.Go(func() error {
			return allow(path, fleet.Nonce{Nonce: identity.NewNonce(), Hostname: "web-01", ExpiresAt: now.Add(time.Hour)}, now)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var list fleet.Nonces
	if err := json.Unmarshal([]byte(readFile(t, path)), &list); err != nil {
		t.Fatal(err)
	}
	distinct := map[string]bool{}
	for _, n := range list.Nonces {
		distinct[n.Nonce] = true
	}
	if len(distinct) != hosts || distinct["expired"] || list.SchemaVersion != fleet.SchemaVersion {
		t.Errorf("%d tokens are allowed: %+v", len(distinct), list)
	}
}
