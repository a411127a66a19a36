package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/metrics"
	"nixfleet/internal/controlplane/source"
	"nixfleet/internal/trust"
)

// releases takes signed documents from their sources to the core.
type releases struct {
	sources  []source.Source
	interval time.Duration
	core     *core.Core
	log      *slog.Logger
	metrics  *metrics.Metrics

	trustFile trust.RootsFile
	roots     atomic.Pointer[trust.Roots]

	// Marks are kept beside the database too, so that losing it does not let an
	// older release in.
	marksFile string
	marks     trust.Marks

	said map[string]string // by source and document: the problem that was last logged
}

func newReleases(c Config, k *core.Core, m *metrics.Metrics) (*releases, error) {
	file, err := databaseFile(c.DB)
	if err != nil {
		return nil, err
	}
	r := &releases{
		interval: c.SourceInterval, core: k, log: c.Log, metrics: m,
		trustFile: trust.RootsFile{Path: c.TrustFile}, said: map[string]string{},
		marksFile: filepath.Join(filepath.Dir(file), "marks.json"),
	}
	for _, folder := range c.ReleaseSource {
		r.sources = append(r.sources, source.Directory(folder))
	}
	roots, err := r.trustFile.Read()
	if err != nil {
		return nil, err
	}
	for _, w := range roots.Warnings {
		r.log.Warn("trust roots", "file", c.TrustFile, "warning", w)
	}
	r.roots.Store(roots)
	if r.marks, err = trust.LoadMarks(r.marksFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r, nil
}

// orgRoot is the slot that signs bootstrap tokens.
func (r *releases) orgRoot() (trust.Slot, bool) {
	slot := r.roots.Load().OrgRootKey
	if slot == nil {
		return trust.Slot{}, false
	}
	return *slot, true
}

// run polls every source until the context ends.
func (r *releases) run(ctx context.Context) {
	verifiers := make([]*source.Verifier, len(r.sources))
	for i, s := range r.sources {
		verifiers[i] = source.NewVerifier(s)
	}
	source.Run(ctx, r.interval, 0, nil, func(ctx context.Context) {
		roots, err := r.trustFile.Read()
		r.say(r.trustFile.Path, err)
		r.roots.Store(roots)
		for i, v := range verifiers {
			if err := r.poll(ctx, r.sources[i].String(), v); err != nil && ctx.Err() == nil {
				r.log.Error("documents not taken", "source", r.sources[i].String(), "error", err)
			}
		}
	})
}

// poll takes what a source has.
func (r *releases) poll(ctx context.Context, name string, v *source.Verifier) error {
	docs := r.core.Documents()
	marks := docs.Marks().Higher(r.marks)
	found := v.Poll(ctx, r.roots.Load().CIReleaseKey, time.Now(), source.Known{
		Fleet: docs.Fleet, Revocations: docs.Revocations, Nonces: docs.Nonces,
		Manifest: docs.ManifestDocument, Plan: docs.Plan, Marks: marks,
	})
	r.complain(name, found.Problems)
	if found.Empty() {
		return nil
	}
	// The marks are durable before the documents that they are of are acted upon.
	if next := found.Marks(marks); !reflect.DeepEqual(next, r.marks) {
		if err := next.Save(r.marksFile); err != nil {
			return err
		}
		r.marks = next
	}
	return r.core.Publish(ctx, found)
}

// complain logs each problem once, and counts those that there are.
func (r *releases) complain(source string, problems []source.Problem) {
	for _, p := range problems {
		reason := trust.Reason(p.Err)
		if reason == "" {
			reason = "unreadable"
		}
		r.metrics.Problems.WithLabelValues(reason).Inc()
		r.say(fmt.Sprintf("%s %s", source, p.Document), p.Err)
	}
}

// say logs what is wrong with something, once as long as it stays that.
func (r *releases) say(about string, err error) {
	if err == nil {
		delete(r.said, about)
		return
	}
	reason := trust.Reason(err)
	what := reason // the error itself tells an age, which grows
	if what == "" {
		what = err.Error()
	}
	if r.said[about] != what {
		r.said[about] = what
		r.log.Warn("not taken; what was taken before stays", "document", about, "reason", reason, "error", err)
	}
}
