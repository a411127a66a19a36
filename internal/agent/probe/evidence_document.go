package probe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nixfleet/internal/lifecycle"
)

const (
	maxControls  = 256 // so that a result with all of them fits into an event
	maxControlID = 128 // bytes
)

// evidenceDocument is what a collector of evidence writes. What is not named here
// is signed as well, and ignored.
type evidenceDocument struct {
	Hostname    string    `json:"hostname"`
	CollectedAt time.Time `json:"collectedAt"`
	Controls    controls  `json:"controls"`
}

// collected is one control in it. It says whether it passed by Passed or by
// Status.
type collected struct {
	ID         string              `json:"controlId"`
	Passed     *bool               `json:"passed"`
	Status     lifecycle.Status    `json:"status"`
	Frameworks map[string][]string `json:"frameworkArticles"` // articles by framework
	Reason     string              `json:"reason"`
}

// controls are a list, or an object by id.
type controls []collected

func (c *controls) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return json.UnmarshalDecode(dec, (*[]collected)(c))
	}
	var byID map[string]collected
	if err := json.UnmarshalDecode(dec, &byID); err != nil {
		return err
	}
	for id, control := range byID {
		control.ID = id
		*c = append(*c, control)
	}
	return nil
}

// parseEvidence reads a document, whose schema version tells what else it has.
func parseEvidence(doc []byte) (evidenceDocument, error) {
	var head struct {
		SchemaVersion jsontext.Value `json:"schemaVersion"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return evidenceDocument{}, fmt.Errorf("is malformed: %w", err)
	}
	if version := cmp.Or(string(head.SchemaVersion), "none"); version != fmt.Sprint(evidenceSchema) {
		return evidenceDocument{}, fmt.Errorf("has the schemaVersion %s, this agent knows %d", version, evidenceSchema)
	}
	var d evidenceDocument
	err := json.Unmarshal(doc, &d)
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return evidenceDocument{}, fmt.Errorf("is malformed: %w", err)
	}
	return d, nil
}

func (d evidenceDocument) check() error {
	switch {
	case d.CollectedAt.IsZero():
		return errors.New("collectedAt is missing")
	case len(d.Controls) > maxControls:
		return fmt.Errorf("%d controls, at most %d are read", len(d.Controls), maxControls)
	}
	slices.SortFunc(d.Controls, func(a, b collected) int { return strings.Compare(a.ID, b.ID) })
	for i, c := range d.Controls {
		switch {
		case c.ID == "" || len(c.ID) > maxControlID:
			return fmt.Errorf("the controlId %.*q: 1 to %d bytes are needed", maxControlID, c.ID, maxControlID)
		case i > 0 && c.ID == d.Controls[i-1].ID:
			return fmt.Errorf("the control %s is there twice", c.ID)
		}
	}
	return nil
}

// covers tells whether the control is of a framework. One that names no
// frameworks is of every one.
func (c collected) covers(framework string) bool {
	_, named := c.Frameworks[framework]
	return named || c.Frameworks == nil
}

// status is a pass when the control says so, and in no other words.
func (c collected) status() lifecycle.Status {
	passed := c.Status == lifecycle.Pass
	if c.Passed != nil {
		passed = *c.Passed && (c.Status == "" || passed)
	}
	if passed {
		return lifecycle.Pass
	}
	return lifecycle.Fail
}

func (c collected) reason() string {
	switch {
	case c.Passed == nil && c.Status == "":
		return "it says neither passed nor status"
	case c.Status != "" && c.Status != lifecycle.Pass && c.Status != lifecycle.Fail:
		return strings.TrimSpace(fmt.Sprintf("its status is %q. %s", c.Status, c.Reason))
	}
	return c.Reason
}
