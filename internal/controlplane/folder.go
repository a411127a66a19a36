package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// verifier looks at a folder of documents at one point of time.
type verifier struct {
	*releases
	docs  *core.Documents // that were taken before
	marks trust.Marks
	slot  trust.Slot
	now   time.Time
}

// signed is a document as it lies in a file, with its signature.
type signed struct{ doc, sig []byte }

// folder is what is new and good in a folder. The fleet document is published
// last, so it is read first: what it names is there.
func (v *verifier) folder(dir string) core.Release {
	var r core.Release
	r.Fleet = take(v, filepath.Join(dir, "fleet.resolved.json"), store.KindFleet, v.docs.Fleet, func(s signed) (trust.Verified[fleet.Fleet], error) {
		return trust.Verify[fleet.Fleet](s.doc, s.sig, v.slot, v.now, 0, v.marks.Fleet)
	})
	newest := r.Fleet
	if newest == nil {
		newest = v.docs.Fleet
	}
	if newest == nil {
		return r
	}
	window := newest.Doc().Window()
	r.Revocations = take(v, filepath.Join(dir, "revocations.json"), store.KindRevocations, v.docs.Revocations, func(s signed) (trust.Verified[fleet.Revocations], error) {
		return trust.Verify[fleet.Revocations](s.doc, s.sig, v.slot, v.now, window, v.marks.Revocations)
	})
	r.Nonces = take(v, filepath.Join(dir, "bootstrap-nonces.json"), store.KindNonces, v.docs.Nonces, func(s signed) (trust.Verified[fleet.Nonces], error) {
		return trust.Verify[fleet.Nonces](s.doc, s.sig, v.slot, v.now, window, v.marks.Nonces)
	})
	files, err := filepath.Glob(filepath.Join(dir, "rollouts", "*.json"))
	v.verdict(dir, store.KindManifest, err)
	for _, file := range files {
		if m := v.manifest(file, *newest); m != nil {
			r.Manifests = append(r.Manifests, *m)
		}
	}
	return r
}

// manifest takes a manifest of the newest release, or newer bytes of a known
// rollout. Manifests of older releases stay in the folder and concern nobody.
func (v *verifier) manifest(file string, newest trust.Verified[fleet.Fleet]) *trust.Verified[fleet.Manifest] {
	id := strings.TrimSuffix(filepath.Base(file), ".json")
	channel, _, _, err := fleet.ParseRolloutID(id)
	if err != nil {
		v.verdict(file, store.KindManifest, err)
		return nil
	}
	have := v.docs.ManifestDocument(id)
	return take(v, file, store.KindManifest, have, func(s signed) (trust.Verified[fleet.Manifest], error) {
		var head struct {
			FleetResolvedHash string `json:"fleetResolvedHash"`
		}
		_ = json.Unmarshal(s.doc, &head) // what is no manifest is found out below
		want := trust.Expect{RolloutID: id, PlanHash: v.docs.Plan(id)}
		if head.FleetResolvedHash == newest.Hash() {
			want.Fleet = &newest
		} else if have == nil {
			return trust.Verified[fleet.Manifest]{}, errOtherRelease
		}
		return trust.VerifyManifest(s.doc, s.sig, v.slot, v.now, 0, v.marks.Channels[channel], want)
	})
}

// errOtherRelease: the manifest was published with another fleet document.
var errOtherRelease = errors.New("of another release")

// take reads and verifies a document with its signature. Nil: it is not there,
// not new, or not good.
func take[T any](v *verifier, file, kind string, have *trust.Verified[T], verify func(signed) (trust.Verified[T], error)) *trust.Verified[T] {
	s, err := readSigned(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var got trust.Verified[T]
	if err == nil {
		if have != nil && bytes.Equal(s.doc, have.Bytes()) && bytes.Equal(s.sig, have.Signature()) {
			v.verdict(file, kind, nil)
			return nil
		}
		got, err = verify(s)
	}
	if errors.Is(err, errOtherRelease) {
		return nil
	}
	v.verdict(file, kind, err)
	if err != nil {
		return nil
	}
	v.metrics.Documents.WithLabelValues(kind, "good").Inc()
	return &got
}

// readSigned reads a document and the signature beside it. A document without
// one is fs.ErrNotExist too: it is about to be published.
func readSigned(file string) (s signed, err error) {
	if s.doc, err = os.ReadFile(file); err != nil {
		return s, err
	}
	s.sig, err = os.ReadFile(file + ".sig")
	return s, err
}
