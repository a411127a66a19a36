package probe

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
)

const (
	maxEvidence    = 4 << 20 // bytes
	maxSignature   = 1 << 10 // bytes of its file
	maxListed      = 10      // failing controls that a reason names
	evidenceSchema = 1
	// rereadAfter is how long after a pair that does not fit it is read once more:
	// its writer replaces two files, one after the other.
	rereadAfter = time.Second
	// aheadMax is how far evidence may be ahead of the clock. What is further in
	// the future would stay fresh for too long.
	aheadMax = 5 * time.Minute
)

// Evidence is whose evidence counts, and for what. With the zero value none does.
type Evidence struct {
	Host string            // that it must be of
	Key  ed25519.PublicKey // the host's, that must have signed it
	// LiveSince tells since when the system that soaks has been live, by the clock
	// of now: evidence from before it proves another system. Zero, and nil, are for
	// none.
	LiveSince func() time.Time
	// Most is the strictest mode that evidence probes have; "" leaves theirs.
	Most lifecycle.Mode
}

// mode is the mode of a probe that declares one, as far as it may have it.
func (e Evidence) mode(declared lifecycle.Mode) lifecycle.Mode {
	strictness := []lifecycle.Mode{lifecycle.Disabled, lifecycle.Observe, lifecycle.Enforce}
	if e.Most == "" || slices.Index(strictness, declared) <= slices.Index(strictness, e.Most) {
		return declared
	}
	return e.Most
}

func (s settings) evidenceCheck(m Machine) (Func, time.Duration, error) {
	if s.Framework == "" && len(s.Controls) == 0 {
		return nil, 0, errors.New("framework: the name of a compliance framework is needed, or controls")
	}
	if !filepath.IsAbs(s.EvidencePath) {
		return nil, 0, fmt.Errorf("evidencePath %q: an absolute path is needed", s.EvidencePath)
	}
	return func(ctx context.Context) Verdict {
		doc, err := s.authentic(ctx, m.Evidence.Key)
		if err != nil {
			return fail(err.Error())
		}
		return s.judge(doc, m.Evidence, time.Now())
	}, s.timeout(), nil
}

// pair is a document and its signature, as they were read.
type pair struct{ doc, sig []byte }

// authentic gives a document that the host's key signed, in canonical form. A
// pair that does not fit is read once more: it may have been read while it was
// written.
func (s settings) authentic(ctx context.Context, key ed25519.PublicKey) ([]byte, error) {
	first, doc, err := s.verified(key)
	if err == nil {
		return doc, nil
	}
	if !sleep(ctx, rereadAfter) {
		return nil, err
	}
	second, doc, again := s.verified(key)
	switch {
	case again == nil:
		return doc, nil
	case bytes.Equal(first.doc, second.doc) && bytes.Equal(first.sig, second.sig):
		return nil, again
	}
	return nil, fmt.Errorf("%s changed while it was read, and was not whole the second time", s.EvidencePath)
}

// verified reads the pair and verifies it.
func (s settings) verified(key ed25519.PublicKey) (p pair, canonical []byte, err error) {
	sigPath := s.EvidencePath + ".sig"
	p.doc, err = readAtMost(s.EvidencePath, maxEvidence)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil, fmt.Errorf("there is no evidence: %s does not exist", s.EvidencePath)
	}
	if err != nil {
		return p, nil, fmt.Errorf("evidence cannot be read: %w", err)
	}
	p.sig, err = readAtMost(sigPath, maxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil, fmt.Errorf("%s is not signed: %s does not exist", s.EvidencePath, sigPath)
	}
	if err != nil {
		return p, nil, fmt.Errorf("the evidence's signature cannot be read: %w", err)
	}
	canonical, err = p.verify(key)
	if err != nil {
		return p, nil, fmt.Errorf("%s %w", s.EvidencePath, err)
	}
	return p, canonical, nil
}

// verify gives the document in canonical form, when the key has signed that. What
// is verified is the document as it was received, with all that this agent does
// not know in it.
func (p pair) verify(key ed25519.PublicKey) ([]byte, error) {
	canonical, err := trust.CanonicalAny(p.doc)
	if err != nil {
		return nil, fmt.Errorf("is %w", err)
	}
	sig, ok := signatureIn(p.sig)
	switch {
	case !ok:
		return nil, fmt.Errorf("is not signed: its signature has to be %d bytes, raw or in base64", ed25519.SignatureSize)
	case len(key) != ed25519.PublicKeySize:
		return nil, errors.New("cannot be verified: the host has no key")
	case !ed25519.Verify(key, canonical, sig):
		return nil, errors.New("was not signed by this host's SSH key, or was changed since")
	}
	return canonical, nil
}

// signatureIn takes a signature as documents have it, raw, and as collectors of
// evidence write it, in base64.
func signatureIn(file []byte) ([]byte, bool) {
	if len(file) == ed25519.SignatureSize {
		return file, true
	}
	sig, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(file)))
	return sig, err == nil && len(sig) == ed25519.SignatureSize
}

func readAtMost(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", file, most)
	}
	return data, err
}

// judge says what a document proves that the host's key signed.
func (s settings) judge(canonical []byte, e Evidence, now time.Time) Verdict {
	doc, err := parseEvidence(canonical)
	if err == nil {
		err = s.current(doc, e, now)
	}
	if err != nil {
		return fail(fmt.Sprintf("%s %v", s.EvidencePath, err))
	}
	return s.aggregate(s.rows(doc))
}

// current tells whether the document is of this host, and of now.
func (s settings) current(doc evidenceDocument, e Evidence, now time.Time) error {
	var live time.Time
	if e.LiveSince != nil {
		live = e.LiveSince().Truncate(time.Second) // collectors know no parts of a second
	}
	at, age := doc.CollectedAt.UTC(), now.Sub(doc.CollectedAt)
	switch {
	case doc.Hostname != e.Host:
		return fmt.Errorf("is of the host %q, this is %q", doc.Hostname, e.Host)
	case age < -aheadMax:
		return fmt.Errorf("was collected at %s, which this host's clock says is %s ahead", at.Format(time.RFC3339), (-age).Round(time.Second))
	case age > time.Duration(s.MaxAgeSeconds)*time.Second:
		return fmt.Errorf("was collected %s ago, maxAgeSeconds is %d", age.Round(time.Second), s.MaxAgeSeconds)
	case at.Before(live):
		return fmt.Errorf("was collected at %s, before this system went live at %s", at.Format(time.RFC3339), live.UTC().Format(time.RFC3339))
	}
	return nil
}

// rows are the controls that the probe is about, each with its mode.
func (s settings) rows(doc evidenceDocument) []lifecycle.SubResult {
	var rows []lifecycle.SubResult
	found := map[string]bool{}
	for _, c := range doc.Controls {
		_, named := s.Controls[c.ID]
		_, overridden := s.ControlOverrides[c.ID]
		if named || overridden || s.Framework != "" && c.covers(s.Framework) {
			found[c.ID] = true
			rows = append(rows, s.row(c.ID, c.status(), c.reason()))
		}
	}
	for _, named := range []map[string]control{s.ControlOverrides, s.Controls} {
		for id := range named {
			if !found[id] {
				found[id] = true
				rows = append(rows, s.row(id, lifecycle.Fail, "the evidence does not have it"))
			}
		}
	}
	slices.SortFunc(rows, func(a, b lifecycle.SubResult) int { return strings.Compare(a.ID, b.ID) })
	return rows
}

// row is a control's result. What the file says about the control's mode is told
// with it.
func (s settings) row(id string, status lifecycle.Status, reason string) lifecycle.SubResult {
	named, ok := s.ControlOverrides[id]
	if !ok {
		named = s.Controls[id]
	}
	if named.Mode == "" {
		named.Mode = lifecycle.Enforce
	}
	if named.Reason != "" {
		reason = strings.TrimSpace(fmt.Sprintf("%s (%s: %s)", reason, named.Mode, named.Reason))
	}
	return lifecycle.SubResult{ID: id, Mode: named.Mode, Status: status, Reason: reason}
}

// aggregate passes when every enforced row does, and there is one.
func (s settings) aggregate(rows []lifecycle.SubResult) Verdict {
	enforced := 0
	var failing []string
	for _, r := range rows {
		if r.Mode != lifecycle.Enforce {
			continue
		}
		enforced++
		if r.Status == lifecycle.Pass {
			continue
		}
		if r.Reason == "" {
			failing = append(failing, r.ID)
		} else {
			failing = append(failing, r.ID+": "+r.Reason)
		}
	}
	v := Verdict{Status: lifecycle.Pass, SubResults: rows}
	switch {
	case enforced == 0:
		v.Status, v.Reason = lifecycle.Fail, fmt.Sprintf("%s has no control that is enforced", s.EvidencePath)
		if s.Framework != "" {
			v.Reason += ", of the framework " + s.Framework
		}
	case len(failing) > 0:
		v.Status = lifecycle.Fail
		v.Reason = fmt.Sprintf("%d of %d enforced controls fail: %s", len(failing), enforced, strings.Join(failing[:min(len(failing), maxListed)], "; "))
	}
	return v
}
