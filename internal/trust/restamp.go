package trust

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nixfleet/internal/fleet"
)

// Restamp is the canonical form of a document with another meta and, of a
// manifest, another fleetResolvedHash (unless it is ""). All else is kept, also
// members that this program does not know: so the plan stays the plan.
func Restamp(doc []byte, meta fleet.Meta, fleetHash string) ([]byte, error) {
	canonical, err := canonicalDocument(doc)
	if err != nil {
		return nil, err
	}
	var top map[string]jsontext.Value
	if err := json.Unmarshal(canonical, &top); err != nil {
		return nil, fmt.Errorf("restamp: %w", err)
	}
	if top["meta"], err = json.Marshal(meta); err != nil {
		return nil, fmt.Errorf("restamp: %w", err)
	}
	if fleetHash != "" {
		if top["fleetResolvedHash"], err = json.Marshal(fleetHash); err != nil {
			return nil, fmt.Errorf("restamp: %w", err)
		}
	}
	return Encode(top)
}
