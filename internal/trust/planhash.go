package trust

import (
	"crypto/sha256"
	"encoding/hex"
)

// PlanHash is what is frozen of a manifest: the hex SHA-256 of the canonical
// manifest without meta and fleetResolvedHash. Two manifests with the same plan
// hash ask for the same.
func PlanHash(manifest []byte) (string, error) {
	canonical, err := canonicalDocument(manifest)
	if err != nil {
		return "", err
	}
	return planHash(canonical), nil
}

// planHash leaves the two members out of the canonical bytes as they stand: what
// is left is the canonical form of the rest.
func planHash(canonical []byte) string {
	h := sha256.New()
	h.Write([]byte{'{'})
	wrote := false
	for at := 1; at < len(canonical)-1; {
		end := memberEnd(canonical, at)
		switch name := canonical[at : stringEnd(canonical, at)+1]; string(name) {
		case `"meta"`, `"fleetResolvedHash"`:
		default:
			if wrote {
				h.Write([]byte{','})
			}
			h.Write(canonical[at:end])
			wrote = true
		}
		at = end + 1
	}
	h.Write([]byte{'}'})
	return hex.EncodeToString(h.Sum(nil))
}

// memberEnd is the index of the comma or brace after the member that begins at
// i, in canonical bytes.
func memberEnd(canonical []byte, i int) int {
	for depth := 0; ; i++ {
		switch canonical[i] {
		case '"':
			i = stringEnd(canonical, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
}
