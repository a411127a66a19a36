package fleet

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// policyFields is Policy without its methods, so that it can be decoded and
// encoded field by field.
type policyFields Policy

// UnmarshalJSON gives the fields that are absent or null their defaults.
func (p *Policy) UnmarshalJSON(doc []byte) error {
	present, err := withoutNulls(doc)
	if err != nil {
		return err
	}
	fields := policyFields(DefaultPolicy())
	halt := fields.HaltAfter
	fields.HaltAfter = HaltAfter{} // one that is given replaces the default, it is not merged into it
	if err := json.Unmarshal(present, &fields); err != nil {
		return err
	}
	if fields.HaltAfter == (HaltAfter{}) {
		fields.HaltAfter = halt
	}
	*p = Policy(fields)
	return nil
}

// withoutNulls drops an object's members that are null: what Nix writes for an
// option that nobody set.
func withoutNulls(doc []byte) ([]byte, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(doc, &members); err != nil {
		return nil, err
	}
	for name, value := range members {
		if value.Kind() == 'n' {
			delete(members, name)
		}
	}
	return json.Marshal(members)
}

// declaredWaves are the fields of a RolloutPolicy beside its Policy.
type declaredWaves struct {
	Strategy string       `json:"strategy"`
	Waves    []PolicyWave `json:"waves"`
}

// UnmarshalJSON reads the policy's own fields and, with defaults, Policy's.
func (p *RolloutPolicy) UnmarshalJSON(doc []byte) error {
	var declared declaredWaves
	if err := json.Unmarshal(doc, &declared); err != nil {
		return err
	}
	p.Strategy, p.Waves = declared.Strategy, declared.Waves
	return p.Policy.UnmarshalJSON(doc)
}

// MarshalJSON writes both sets of fields into one object.
func (p RolloutPolicy) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		declaredWaves
		policyFields
	}{declaredWaves{p.Strategy, p.Waves}, policyFields(p.Policy)})
}
