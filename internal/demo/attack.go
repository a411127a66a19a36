package demo

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nixfleet/internal/fleetdir"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/nix"
	"nixfleet/internal/release"
	"nixfleet/internal/trust"
)

// attacker is somebody who has taken over the control plane's machine and the
// binary cache, and can replace all of their files, but has no key of the
// owner's.
type attacker struct {
	publisher release.Publisher
	trust     string        // file of trust roots by which the attacker owns the fleet
	cache     *nix.CacheDir // the fleet's; what is added is signed by the attacker
}

func (w *world) newAttacker() (*attacker, error) {
	keys, err := fleetdir.Create(w.in("attacker"), fleetdir.Options{Names: []string{"127.0.0.1"}, URL: w.url, Operator: "attacker", Now: time.Now()})
	if err != nil {
		return nil, err
	}
	a := &attacker{trust: keys.Trust()}
	if a.publisher, err = publisherOf(keys); err != nil {
		return nil, err
	}
	a.cache, _, err = cacheOf(keys, w.in("cache"))
	return a, err
}

// attack has the attacker try everything, and then the owner release once more. It
// returns the rollout of that.
func (w *world) attack(ctx context.Context, a *attacker) (string, error) {
	if err := w.tamper(ctx); err != nil {
		return "", fmt.Errorf("tamper: %w", err)
	}
	if err := w.forge(ctx, a); err != nil {
		return "", fmt.Errorf("forge: %w", err)
	}
	if err := w.smuggle(ctx, a); err != nil {
		return "", fmt.Errorf("smuggle: %w", err)
	}
	return w.rollOut(ctx, releaseSpec{allAtOnce, shortSoakSecs, serving(http.StatusOK, 0)}, nil)
}

// tamper changes the newest manifest where it is published, and puts the fleet
// document of the first release back, with its good signature. It waits for what
// the control plane says, and undoes both.
func (w *world) tamper(ctx context.Context) error {
	w.tampered = w.newest
	manifest, document := filepath.Join(w.keys.Release(), release.ManifestName(w.newest)), filepath.Join(w.keys.Release(), release.FleetName)
	targets, err := w.targets(w.newest)
	if err != nil {
		return err
	}
	original, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	canary, other := targets[w.machines[0].name], targets[w.machines[1].name]
	tampered := bytes.ReplaceAll(original, []byte(other), []byte(canary))
	swapped := []file{{manifest, tampered, 0o644}, {document, w.firstFleet.doc, 0o644}, {document + ".sig", w.firstFleet.sig, 0o644}}
	if err := swap(swapped); err != nil {
		return err
	}
	w.say(Progress{Kind: Note, Text: "changed the newest manifest, and put the fleet document of release 1 back"})
	err = w.until(ctx, settleLimit, func(context.Context) (bool, error) {
		said, err := refusals(w.controlPlane.log)
		return refusedFor(said, release.ManifestName(w.newest), trust.ErrBadSignature) && refusedFor(said, release.FleetName, trust.ErrOlderThanAccepted), err
	})
	if err != nil {
		return err
	}
	return swap(swapped)
}

// swap writes files, and takes up what they held.
func swap(files []file) error {
	for i, f := range files {
		before, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.path, f.data, f.mode); err != nil {
			return err
		}
		files[i].data = before
	}
	return nil
}

// forge makes the attacker the owner in the eyes of the control plane: its trust
// roots are replaced, and a release of the attacker's is published to it. It waits
// until every host has answered, and gives the control plane its own files back.
func (w *world) forge(ctx context.Context, a *attacker) error {
	// A second ago, so that the owner's next release is newer.
	id, err := w.publishAs(ctx, a.publisher, a.cache, releaseSpec{allAtOnce, soakSecs, serving(http.StatusOK, 0)}, time.Now().Add(-time.Second))
	if err != nil {
		return err
	}
	w.forged = id
	roots, err := os.ReadFile(a.trust)
	if err != nil {
		return err
	}
	swapped := []file{{w.keys.Trust(), roots, 0o644}}
	if err := swap(swapped); err != nil {
		return err
	}
	aside := w.in("attacker", "owners-release")
	if err := os.Rename(w.keys.Release(), aside); err != nil {
		return err
	}
	if err := os.Rename(a.publisher.Folder, w.keys.Release()); err != nil {
		return err
	}
	w.say(Progress{Kind: Note, Text: "gave the control plane another owner's keys, and a release signed with them"})
	err = w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
		rows, err := w.watch(ctx, id)
		answered := len(rows) > 0
		for _, row := range rows {
			answered = answered && (row.Reject != nil || row.State == lifecycle.Converged)
		}
		return answered, err
	})
	if err != nil {
		return err
	}
	if err := os.Rename(w.keys.Release(), a.publisher.Folder); err != nil {
		return err
	}
	if err := os.Rename(aside, w.keys.Release()); err != nil {
		return err
	}
	return swap(swapped)
}

// smuggle puts systems into the cache that the attacker signed, and has the owner
// release them.
func (w *world) smuggle(ctx context.Context, a *attacker) error {
	id, err := w.publishAs(ctx, w.publisher, a.cache, releaseSpec{allAtOnce, soakSecs, serving(http.StatusOK, 0)}, time.Now())
	if err != nil {
		return err
	}
	w.smuggled = id
	w.say(Progress{Kind: Note, Text: "released systems that somebody else signed in the cache"})
	return w.settled(ctx, id)
}

// refusal is a document that the control plane did not take, as it says in its log.
type refusal struct {
	at       time.Time
	document string
	reason   string
}

func refusals(log string) ([]refusal, error) {
	lines, err := saidIn(log, documentRefused)
	var all []refusal
	for _, l := range lines {
		all = append(all, refusal{l.Time, l.Document, l.Reason})
	}
	return all, err
}

// refusedFor tells whether a document was refused for a reason.
func refusedFor(said []refusal, document string, reason trust.Refusal) bool {
	for _, r := range said {
		if strings.HasSuffix(r.document, " "+document) && r.reason == trust.Reason(reason) {
			return true
		}
	}
	return false
}

// findAttacks adds what became of the attacks.
func (w *world) findAttacks(ctx context.Context, f *findings) (err error) {
	if f.refusals, err = refusals(w.controlPlane.log); err != nil {
		return err
	}
	f.tampered = w.tampered
	for id, into := range map[string]**findings{w.forged: &f.forged, w.smuggled: &f.smuggled} {
		if id == "" {
			continue // it was not tried
		}
		if *into, err = w.find(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// attacksRefused: the control plane refused the tampered and the old document,
// every host refused the forged release, no host took a system that a stranger
// signed, none of these systems ever ran, and the owner's next release did.
func attacksRefused(f *findings) verdict {
	if f.forged == nil || f.smuggled == nil {
		return broken("nobody attacked")
	}
	if v := f.allConverged(); !v.ok {
		return v
	}
	var early []refusal // before the control plane was given a forged release
	for _, r := range f.refusals {
		if r.at.Before(f.forged.rollout.OpenedAt) {
			early = append(early, r)
		}
	}
	if !refusedFor(early, release.ManifestName(f.tampered), trust.ErrBadSignature) {
		return broken("the control plane did not refuse a manifest that was changed")
	}
	if !refusedFor(early, release.FleetName, trust.ErrOlderThanAccepted) {
		return broken("the control plane did not refuse an old fleet document")
	}
	unsigned := 0
	for _, host := range f.hosts {
		if r := f.forged.rows[host].Reject; r == nil || string(r.Reason) != trust.Reason(trust.ErrBadSignature) {
			return broken("%s did not refuse the forged release for its signature", host)
		}
		forged, _ := f.forged.target(host)
		smuggled, _ := f.smuggled.target(host)
		for _, s := range f.machines[host].switches {
			if s.closure == forged || s.closure == smuggled {
				return broken("%s switched to %s", host, s.closure)
			}
		}
		if len(f.smuggled.of(host)) == 0 {
			continue // the rollout had halted before
		}
		_, _, began := first[lifecycle.ActivationStarted](f.smuggled, host)
		if _, _, overtaken := first[lifecycle.WasSuperseded](f.smuggled, host); overtaken && !began {
			continue // by the owner's next release, before it had fetched anything
		}
		_, failed, ok := first[lifecycle.ActivationFailed](f.smuggled, host)
		if began || !ok || failed.Phase != lifecycle.PhaseFetch || !failed.BadSignature {
			return broken("%s did not refuse the system that a stranger signed", host)
		}
		unsigned++
	}
	if unsigned == 0 {
		return broken("no host was offered the system that a stranger signed")
	}
	return holds("the control plane: %s, %s; %d hosts: %s; %d fetched a stranger's system: not signed by a pinned key",
		trust.Reason(trust.ErrBadSignature), trust.Reason(trust.ErrOlderThanAccepted), len(f.hosts), trust.Reason(trust.ErrBadSignature), unsigned)
}
