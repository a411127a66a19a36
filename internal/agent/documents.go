package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// fetchPlan fetches a rollout's manifest and verifies it. It gives nil when the
// control plane still has the bytes that the journal has. A *rejection means that
// the document is not to be followed; any other error, that nothing is known.
func (a *Agent) fetchPlan(ctx context.Context, id string) (*plan, error) {
	roots, err := a.roots(ctx)
	if err != nil {
		return nil, err
	}
	state := a.reducer.view()
	if _, err := a.checkClock(state.self.Marks); err != nil {
		return nil, &rejection{Reason: wire.RejectClockSuspect, Detail: err.Error()}
	}
	held, err := a.document(id)
	if err != nil {
		return nil, err
	}
	expect := trust.Expect{RolloutID: id}
	if e := state.find(id); e != nil {
		expect.PlanHash = e.Host.PlanHash
	}
	// Document and signature are two requests, between which the control plane may
	// have taken newer ones: a signature that does not fit is worth a second look.
	for attempt := 1; ; attempt++ {
		p, err := a.fetchPlanOnce(ctx, roots, state.self.Marks, held.ETag, expect)
		if err == nil && p != nil {
			a.staleAt.Store(p.staleAt(a.cfg.MaxFreshnessWindow))
		}
		if errors.Is(err, trust.ErrBadSignature) && attempt == 1 {
			continue
		}
		if reason := trust.Reason(err); reason != "" {
			return nil, &rejection{Reason: wire.RejectReason(reason), Detail: err.Error()}
		}
		return p, err
	}
}

func (a *Agent) fetchPlanOnce(ctx context.Context, roots *trust.Roots, marks trust.Marks, etag string, expect trust.Expect) (*plan, error) {
	doc, modified, err := a.uplink.Document(ctx, wire.Fill(wire.PathManifest, expect.RolloutID), wire.Fill(wire.PathManifestSig, expect.RolloutID), etag)
	var answer *wire.Error
	switch {
	case errors.As(err, &answer) && answer.Status() == http.StatusNotFound:
		return nil, &rejection{Reason: wire.RejectNoManifest, Detail: "the control plane has no manifest of " + expect.RolloutID}
	case errors.Is(err, uplink.ErrTooLarge):
		return nil, &rejection{Reason: wire.RejectReason(trust.ErrMalformed), Detail: err.Error()}
	case err != nil:
		return nil, fmt.Errorf("fetch the manifest: %w", err)
	case !modified:
		return nil, nil
	}
	p := &plan{id: expect.RolloutID, etag: doc.ETag}
	verify := func() error {
		p.manifest, err = trust.VerifyManifest(doc.Bytes, doc.Signature, roots.CIReleaseKey, time.Now(), a.cfg.MaxFreshnessWindow, marks.Manifest, expect)
		return err
	}
	if err := verify(); !needsFleet(err) {
		return p, err
	}
	if p.fleet, err = a.fetchFleet(ctx, roots, marks); err != nil {
		return nil, err
	}
	expect.Fleet = p.fleet
	return p, verify()
}

// staleAt is when a verified manifest is too old to be accepted; nil when only the
// fleet document says.
func (p *plan) staleAt(narrowed time.Duration) *time.Time {
	window := time.Duration(p.manifest.Doc().FreshnessWindowMinutes) * time.Minute
	if narrowed > 0 && window > narrowed {
		window = narrowed
	}
	if window == 0 {
		return nil
	}
	at := p.manifest.SignedAt().Add(window)
	return &at
}

// needsFleet tells whether a manifest was refused for lack of what an older
// producer left to the fleet document: its policy, or its freshness window.
func needsFleet(err error) bool {
	var refused *trust.Error
	return errors.Is(err, trust.ErrIncomplete) ||
		errors.As(err, &refused) && refused.Refusal == trust.ErrStale && refused.Window == 0
}

func (a *Agent) fetchFleet(ctx context.Context, roots *trust.Roots, marks trust.Marks) (*trust.Verified[fleet.Fleet], error) {
	doc, _, err := a.uplink.Document(ctx, wire.PathFleet, wire.PathFleetSig, "")
	if err != nil {
		return nil, fmt.Errorf("fetch the fleet document: %w", err)
	}
	v, err := trust.Verify[fleet.Fleet](doc.Bytes, doc.Signature, roots.CIReleaseKey, time.Now(), a.cfg.MaxFreshnessWindow, marks.Fleet)
	return &v, err
}

// document is what the journal holds of a rollout's manifest; zero for nothing.
func (a *Agent) document(id string) (held journal.Document, err error) {
	err = a.journal.View(func(tx *journal.Tx) error {
		held, _, err = tx.Document(id)
		return err
	})
	return held, err
}

// refreshPlan fetches newer bytes of a plan that is followed, if there are any.
func (a *Agent) refreshPlan(ctx context.Context, id string) error {
	p, err := a.fetchPlan(ctx, id)
	if err != nil || p == nil {
		return err
	}
	return a.reducer.submit(ctx, "refresh "+id, func(t *turn) error { return t.refresh(*p) })
}

// roots reads trust.json. When it has become unusable what it said before counts.
func (a *Agent) roots(ctx context.Context) (*trust.Roots, error) {
	var file *trust.RootsFile
	select {
	case file = <-a.rootsFile:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { a.rootsFile <- file }()
	roots, err := file.Read()
	if roots == nil {
		return nil, err
	}
	if err != nil {
		a.log.Warn("the trust roots cannot be read again; the ones before stay", "err", err)
	}
	return roots, nil
}
