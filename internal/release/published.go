package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nixfleet/internal/fleet"
)

// published is what a folder holds already.
type published struct {
	signedAt                  time.Time // of the newest document
	fleet, fleetSig           []byte    // nil: none
	revocations, nonces       []byte    // nil: none
	revocationsSig, noncesSig []byte
	manifests                 map[string]publishedManifest
	attempts                  map[string]int // the highest, by first attempt's id
}

type publishedManifest struct {
	doc, sig  []byte
	fleetHash string
}

// readPublished reads the folder, which may not be there yet.
func readPublished(folder string) (published, error) {
	p := published{manifests: map[string]publishedManifest{}, attempts: map[string]int{}}
	var err error
	if p.fleet, p.fleetSig, err = p.read(filepath.Join(folder, FleetName)); err != nil {
		return p, err
	}
	if p.revocations, p.revocationsSig, err = p.read(filepath.Join(folder, RevocationsName)); err != nil {
		return p, err
	}
	if p.nonces, p.noncesSig, err = p.read(filepath.Join(folder, NoncesName)); err != nil {
		return p, err
	}
	entries, err := os.ReadDir(filepath.Join(folder, rolloutsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("published rollouts: %w", err)
	}
	for _, e := range entries {
		id, isManifest := strings.CutSuffix(e.Name(), ".json")
		channel, ref, attempt, err := fleet.ParseRolloutID(id)
		if !isManifest || err != nil {
			continue // a signature, or nothing of ours
		}
		doc, sig, err := p.read(filepath.Join(folder, ManifestName(id)))
		if err != nil {
			return p, err
		}
		var names struct {
			Fleet string `json:"fleetResolvedHash"`
		}
		if err := json.Unmarshal(doc, &names); err != nil {
			return p, fmt.Errorf("published manifest of %s: %w", id, err)
		}
		p.manifests[id] = publishedManifest{doc: doc, sig: sig, fleetHash: names.Fleet}
		first := fleet.RolloutID(channel, ref, 1)
		p.attempts[first] = max(p.attempts[first], attempt)
	}
	return p, nil
}

// attempt is the highest published attempt of a channel's ref, or 1.
func (p published) attempt(channel, ref string) int {
	return max(1, p.attempts[fleet.RolloutID(channel, ref, 1)])
}

// read reads a pair; both are nil when there is none.
func (p *published) read(path string) (doc, sig []byte, err error) {
	doc, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("published document: %w", err)
	}
	if sig, err = os.ReadFile(path + ".sig"); err != nil {
		return nil, nil, fmt.Errorf("published document's signature: %w", err)
	}
	var dated struct {
		Meta fleet.Meta `json:"meta"`
	}
	if err := json.Unmarshal(doc, &dated); err != nil {
		return nil, nil, fmt.Errorf("published document %s: %w", path, err)
	}
	if at := dated.Meta.SignedAt; at != nil && at.After(p.signedAt) {
		p.signedAt = *at
	}
	return doc, sig, nil
}
