package nixos

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"nixfleet/internal/nix"
)

// pathInfo is one path in the output of nix path-info --json.
type pathInfo struct {
	Path       string   `json:"path"` // absent where it is the key
	NarHash    string   `json:"narHash"`
	NarSize    int64    `json:"narSize"`
	References []string `json:"references"`
	Signatures []string `json:"signatures"`
	Valid      *bool    `json:"valid"` // false where an older Nix does not know the path
}

// parsePathInfo finds what Nix has recorded about a path. Older versions print a
// list, newer ones an object by path. Anything else is an error: a signature
// that cannot be read does not count.
func parsePathInfo(output []byte, base string) (*nix.NarInfo, error) {
	var list []pathInfo
	if err := json.Unmarshal(output, &list); err != nil {
		var byPath map[string]*pathInfo
		if err := json.Unmarshal(output, &byPath); err != nil {
			return nil, fmt.Errorf("nix path-info: unknown output: %w", err)
		}
		for path, info := range byPath {
			if info != nil {
				info.Path = path
				list = append(list, *info)
			}
		}
	}
	for _, info := range list {
		if storeName(info.Path) == base && (info.Valid == nil || *info.Valid) {
			return info.narInfo(base)
		}
	}
	return nil, errors.New("nix path-info: the path is not valid")
}

func (p pathInfo) narInfo(base string) (*nix.NarInfo, error) {
	hash, err := nix.ParseHash(p.NarHash)
	if err != nil {
		return nil, fmt.Errorf("nix path-info: %w", err)
	}
	n := &nix.NarInfo{Base: base, NarHash: hash, NarSize: p.NarSize, Sigs: p.Signatures}
	for _, ref := range p.References {
		n.References = append(n.References, storeName(ref))
	}
	return n, nil
}

// storeName is a base name, of a path or of what is one already.
func storeName(path string) string { return strings.TrimPrefix(path, nix.StoreDir+"/") }
