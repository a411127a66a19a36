package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"sync/atomic"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/controlplane/metrics"
	"nixfleet/internal/trust"
)

// releases takes signed documents from their sources to the core.
type releases struct {
	folders  []string
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

	bad map[string]int // by file: for how many polls it was not good
}

// badAfter is for how many polls a document must be bad before that is said: its
// signature may be about to be replaced.
const badAfter = 3

func newReleases(c Config, k *core.Core, m *metrics.Metrics) (*releases, error) {
	file, err := databaseFile(c.DB)
	if err != nil {
		return nil, err
	}
	r := &releases{
		folders: c.ReleaseSource, interval: c.SourceInterval, core: k, log: c.Log, metrics: m,
		trustFile: trust.RootsFile{Path: c.TrustFile}, bad: map[string]int{},
		marksFile: filepath.Join(filepath.Dir(file), "marks.json"),
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

// run polls until the context ends.
func (r *releases) run(ctx context.Context) error {
	for {
		if err := r.poll(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("documents not taken", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.interval):
		}
	}
}

// poll looks at every source once.
func (r *releases) poll(ctx context.Context) error {
	roots, err := r.trustFile.Read()
	r.verdict(r.trustFile.Path, "trust", err)
	r.roots.Store(roots)
	for _, folder := range r.folders {
		docs := r.core.Documents()
		v := verifier{
			releases: r, docs: docs, marks: docs.Marks().Higher(r.marks),
			slot: roots.CIReleaseKey, now: time.Now(),
		}
		release := v.folder(folder)
		if err := r.raise(v.marks, release); err != nil {
			return err
		}
		if err := r.core.Publish(ctx, release); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	return nil
}

// raise makes the marks durable that taking the release sets, before it is taken.
func (r *releases) raise(marks trust.Marks, release core.Release) error {
	if release.Empty() {
		return nil
	}
	raised := trust.Marks{Channels: map[string]trust.Mark{}}
	if release.Fleet != nil {
		raised.Fleet = release.Fleet.Mark()
	}
	if release.Revocations != nil {
		raised.Revocations = release.Revocations.Mark()
	}
	if release.Nonces != nil {
		raised.Nonces = release.Nonces.Mark()
	}
	for _, m := range release.Manifests {
		raised.Channels[m.Doc().Channel] = raised.Channels[m.Doc().Channel].Higher(m.Mark())
	}
	next := marks.Higher(raised)
	if sameMarks(next, r.marks) {
		return nil
	}
	if err := next.Save(r.marksFile); err != nil {
		return err
	}
	r.marks = next
	return nil
}

func sameMarks(a, b trust.Marks) bool {
	return a.Fleet == b.Fleet && a.Revocations == b.Revocations && a.Nonces == b.Nonces && maps.Equal(a.Channels, b.Channels)
}

// verdict counts what became of a document, and complains once about one that
// stays bad.
func (r *releases) verdict(file, kind string, err error) {
	if err == nil {
		delete(r.bad, file)
		return
	}
	reason := trust.Reason(err)
	if reason == "" {
		reason = "unreadable"
	}
	r.metrics.Documents.WithLabelValues(kind, reason).Inc()
	if r.bad[file]++; r.bad[file] == badAfter {
		r.log.Warn("document not taken; what was taken before stays", "file", file, "reason", reason, "error", err)
	}
}
