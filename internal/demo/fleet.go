package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
	"nixfleet/internal/release"
)

// releaseSpec is what is particular to one release.
type releaseSpec struct {
	policy   string
	soakSecs int
	build    build
}

// The rollout policies of the demo's fleet.
const (
	allAtOnce   = "all-at-once"
	canaryFirst = "canary-first"
	pairFirst   = "pair-first" // and their guards are impatient
)

// declare is the fleet document with the systems of a release.
func (w *world) declare(policy string, closures map[string]fleet.Closure, soak int) *fleet.Fleet {
	limits := fleet.DefaultPolicy()
	limits.HealthFailureSecs = healthFailureSecs
	limits.ConfirmWindowSecs = confirmWindowSecs
	limits.Guard = fleet.GuardOptional // the machines' systems are two files, without an agent in them
	everybody := fleet.PolicyWave{Selector: fleet.Selector{All: true}, SoakSecs: &soak}
	canaries := fleet.PolicyWave{Selector: fleet.Selector{Tags: []string{"canary"}}, SoakSecs: &soak}
	impatient := limits
	impatient.AliveSecs = aliveSecs
	pair := fleet.PolicyWave{Selector: fleet.Selector{Hosts: []string{w.machines[0].name, w.machines[1].name}}, SoakSecs: &soak}
	f := &fleet.Fleet{
		SchemaVersion: fleet.SchemaVersion,
		Hosts:         map[string]fleet.Host{},
		Channels: map[string]fleet.Channel{channel: {
			RolloutPolicy: policy, ReconcileIntervalMinutes: 30, FreshnessWindow: 24 * 60, SigningIntervalMinutes: 60,
			Compliance: fleet.Compliance{Frameworks: []string{}, Mode: "disabled"},
		}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{
			allAtOnce:   {Strategy: "all-at-once", Waves: []fleet.PolicyWave{everybody}, Policy: limits},
			canaryFirst: {Strategy: "canary", Waves: []fleet.PolicyWave{canaries, everybody}, Policy: limits},
			pairFirst:   {Strategy: "canary", Waves: []fleet.PolicyWave{pair, everybody}, Policy: impatient},
		},
		Meta: fleet.Meta{SchemaVersion: fleet.SchemaVersion},
	}
	for i, m := range w.machines {
		closure, pubkey := closures[m.name], m.pubkeyLine()
		h := fleet.Host{System: hostSystem, Channel: channel, ClosureHash: &closure, Pubkey: &pubkey, Tags: []string{}}
		if i == 0 {
			h.Tags = append(h.Tags, "canary")
		}
		f.Hosts[m.name] = h
	}
	return f
}

// signedDoc is a document with its signature.
type signedDoc struct{ doc, sig []byte }

// publish makes a release of the owner's. It returns the rollout's id.
func (w *world) publish(ctx context.Context, spec releaseSpec) (string, error) {
	id, err := w.publishAs(ctx, w.publisher, w.cache, spec, time.Now())
	if err != nil {
		return "", err
	}
	w.newest = id
	if w.firstFleet.doc == nil {
		name := filepath.Join(w.publisher.Folder, release.FleetName)
		if w.firstFleet.doc, err = os.ReadFile(name); err != nil {
			return "", err
		}
		w.firstFleet.sig, err = os.ReadFile(name + ".sig")
	}
	return id, err
}

// publishAs builds a release's systems into a cache, has the publisher sign its
// documents, and publishes them. It returns the rollout's id.
func (w *world) publishAs(ctx context.Context, as release.Publisher, cache *nix.CacheDir, spec releaseSpec, now time.Time) (string, error) {
	w.releases++
	closures := map[string]fleet.Closure{}
	for _, m := range w.machines {
		c, err := addSystem(cache, w.folder, system{m.name, strconv.Itoa(w.releases), w.routes()}, spec.build)
		if err != nil {
			return "", err
		}
		closures[m.name] = c
	}
	doc, err := json.Marshal(w.declare(spec.policy, closures, spec.soakSecs))
	if err != nil {
		return "", err
	}
	nonces, err := json.Marshal(fleet.Nonces{SchemaVersion: fleet.SchemaVersion, Nonces: w.nonces})
	if err != nil {
		return "", err
	}
	result, err := as.Release(ctx, release.Request{Fleet: doc, Nonces: nonces, Now: now})
	if err != nil {
		return "", fmt.Errorf("release %d: %w", w.releases, err)
	}
	return result.Rollouts[0].ID, nil
}

// targets are what the hosts are to run in a published rollout.
func (w *world) targets(id string) (map[string]fleet.Closure, error) {
	doc, err := os.ReadFile(filepath.Join(w.publisher.Folder, release.ManifestName(id)))
	if err != nil {
		return nil, err
	}
	var m fleet.Manifest
	if err := json.Unmarshal(doc, &m); err != nil {
		return nil, err
	}
	targets := map[string]fleet.Closure{}
	for _, t := range m.HostSet {
		targets[t.Hostname] = t.TargetClosure
	}
	return targets, nil
}
