package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nixfleet/internal/evidence"
	"nixfleet/internal/release"
)

// audit is what nixfleet evidence verify says about an exported bundle.
type audit struct {
	OK    bool        `json:"ok"`
	Hosts []hostAudit `json:"hosts"`
}

type hostAudit struct {
	Hostname string `json:"hostname"`
	OK       bool   `json:"ok"`
	Error    string `json:"error"`
	Records  int    `json:"records"`
	Heads    int    `json:"heads"`
}

// of is what is said about one host.
func (a audit) of(host string) (hostAudit, bool) {
	i := slices.IndexFunc(a.Hosts, func(h hostAudit) bool { return h.Hostname == host })
	if i < 0 {
		return hostAudit{}, false
	}
	return a.Hosts[i], true
}

// findAudit is what an auditor does: all hosts' evidence is exported from the
// control plane and verified with the keys of the owner's fleet document, as it is
// and with one bit of each host's records flipped.
func (w *world) findAudit(ctx context.Context, f *findings) error {
	folder, err := os.MkdirTemp(w.folder, "audit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) // the whole folder goes at the end anyway
	bundle := filepath.Join(folder, "evidence")
	export := append([]string{"evidence", "export", "--config", w.keys.Config(), "--out", bundle}, f.hosts...)
	if out, err := exec.CommandContext(ctx, w.programs.Nixfleet, export...).CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("nixfleet evidence export: %w\n%s", err, out)
	}
	if f.audit, err = w.verifyEvidence(ctx, bundle); err != nil {
		return err
	}
	f.audited = map[string][]string{}
	for _, host := range f.hosts {
		records := filepath.Join(bundle, host, "records.jsonl")
		raw, err := os.ReadFile(records)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(raw) {
			f.audited[host] = append(f.audited[host], string(bytes.TrimSuffix(line, []byte("\n"))))
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(records, raw, 0o644); err != nil {
			return err
		}
	}
	f.flipped, err = w.verifyEvidence(ctx, bundle)
	return err
}

// verifyEvidence runs nixfleet evidence verify. That a bundle is not good is no
// error.
func (w *world) verifyEvidence(ctx context.Context, bundle string) (audit, error) {
	cmd := exec.CommandContext(ctx, w.programs.Nixfleet, "evidence", "verify", bundle, "--json", "--fleet", filepath.Join(w.keys.Release(), release.FleetName))
	var said, wrong bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &wrong
	err := cmd.Run()
	if ctx.Err() != nil {
		return audit{}, ctx.Err()
	}
	var exit *exec.ExitError
	const notGood = 1
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != notGood) {
		return audit{}, fmt.Errorf("nixfleet evidence verify: %w\n%s", err, wrong.String())
	}
	var a audit
	if err := json.Unmarshal(said.Bytes(), &a); err != nil {
		return audit{}, fmt.Errorf("nixfleet evidence verify: %w\n%s", err, said.String())
	}
	return a, nil
}

// audited: what was exported of every host verifies, leads to signed heads and
// holds what the host committed last; with one bit flipped it does not verify.
func audited(f *findings) verdict {
	records, heads := 0, 0
	for _, host := range f.hosts {
		a, here := f.audit.of(host)
		switch {
		case !here:
			return broken("there is no evidence of %s", host)
		case !a.OK:
			return broken("the evidence of %s does not verify: %s", host, a.Error)
		case a.Heads == 0:
			return broken("%s has signed no head of its chain", host)
		}
		for i, e := range f.machines[host].journal {
			record, err := evidence.Of(e).Canonical()
			if err != nil || !slices.Contains(f.audited[host], string(record)) {
				return broken("event %d that %s committed in %s is not in its evidence", i+1, host, e.RolloutID)
			}
		}
		if flipped, here := f.flipped.of(host); !here || flipped.OK {
			return broken("the evidence of %s verifies with a bit flipped", host)
		}
		records, heads = records+a.Records, heads+a.Heads
	}
	if !f.audit.OK || f.flipped.OK {
		return broken("the verdict on the bundle is not that on its hosts")
	}
	var words []string
	for _, h := range f.flipped.Hosts {
		if !slices.Contains(words, h.Error) {
			words = append(words, h.Error)
		}
	}
	return holds("%d records of %d hosts verify offline, %d signed heads for ssh-keygen; with one bit flipped: %s", records, len(f.hosts), heads, strings.Join(words, ", "))
}
