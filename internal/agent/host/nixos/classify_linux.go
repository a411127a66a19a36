package nixos

import (
	"strings"

	"nixfleet/internal/agent/host"
)

// complaints are Nix's words for what may go wrong with a fetch. Its exit code is
// 1 for all of it. The first group that was heard is what a failure means: a
// cache that is down may have had the path that another has unsigned.
var complaints = []struct {
	kind  host.FetchKind
	words []string
}{
	{host.FetchNoSpace, []string{
		"No space left on device",
		"Disk quota exceeded",
		"database or disk is full",
	}},
	{host.FetchCacheDown, []string{
		"unable to download",
		"Transferred a partial file",
		"Timeout was reached",
	}},
	{host.FetchCorrupt, []string{
		"hash mismatch importing path",
		"Failed to open archive",
		"does not exist in binary cache",
		"bad archive",
		"is incomplete",
	}},
	{host.FetchBadSignature, []string{
		"is not signed by any of the keys in 'trusted-public-keys'",
		"it's not signed by any of the keys in 'trusted-public-keys'",
		"lacks a signature by a trusted key",
		"lacks a valid signature",
	}},
	{host.FetchLocked, []string{
		"database is busy",
		"database is locked",
		"waiting for the big Nix store lock",
		"waiting for exclusive access",
	}},
	{host.FetchMissing, []string{
		"don't know how to build these paths",
		"there is no substituter that can build it",
	}},
}

// hearing collects what a Nix program complains about.
type hearing struct{ heard map[host.FetchKind]bool }

func (h *hearing) line(text string) {
	for _, c := range complaints {
		for _, words := range c.words {
			if strings.Contains(text, words) {
				if h.heard == nil {
					h.heard = make(map[host.FetchKind]bool)
				}
				h.heard[c.kind] = true
			}
		}
	}
}

// kind is what a program that failed failed of.
func (h *hearing) kind() host.FetchKind {
	for _, c := range complaints {
		if h.heard[c.kind] {
			return c.kind
		}
	}
	return host.FetchOther
}
