package crash

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/evidence"
	"nixfleet/internal/fleet"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// settle waits until the host has ended, and has told everything; the agent is
// stopped then.
func (w *world) settle(e ending) {
	w.t.Helper()
	rollout := w.rollout
	if e.later {
		rollout = w.second
	}
	w.eventually(fmt.Sprintf("it is %s", e), func() (bool, string) {
		state, text := w.state(rollout)
		there, machine := w.is(e.on, e.on)()
		told, view := w.tells(e.on)
		left := w.left()
		if state != e.state || !there || !told || len(left) > 0 {
			return false, fmt.Sprintf("%s; %s; %s; left: %v", text, machine, view, left)
		}
		w.agent.stop(syscall.SIGTERM)
		if waiting := w.unsent(); waiting != "" {
			w.agent.keep()
			return false, waiting
		}
		return true, ""
	})
}

// tells: what the control plane says that the host runs and boots is what is named.
func (w *world) tells(on string) (bool, string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), requestLimit)
	defer cancel()
	view, err := operator.Get[wire.HostView](ctx, w.operator, wire.Fill(wire.PathHost, w.host.Name))
	if err != nil {
		return false, err.Error()
	}
	want := map[string]fleet.Closure{"prior": w.prior, "target": w.target, "next": w.next}[on]
	return view.Current == want && view.BootDefault == want, fmt.Sprintf("it says that it runs %s and boots %s", view.Current, view.BootDefault)
}

// left are the files of a guard that should be gone.
func (w *world) left() []string {
	var left []string
	for _, name := range []string{"lease", "lease.claimed", "guard-outcome"} {
		if _, err := os.Lstat(filepath.Join(w.stateDir(), name)); err == nil {
			left = append(left, name)
		}
	}
	return left
}

// committed are the events in the journal of an agent that does not run, by
// rollout, and up to which number they were acknowledged.
func (w *world) committed() (events map[string][]wire.Envelope, acked map[string]int64) {
	w.t.Helper()
	events, acked = map[string][]wire.Envelope{}, map[string]int64{}
	w.ok(journal.Read(filepath.Join(w.stateDir(), "journal.db"), func(tx *journal.Tx) error {
		rollouts, err := tx.Rollouts()
		if err != nil {
			return err
		}
		for _, r := range rollouts {
			id := r.Host.Rollout
			acked[id] = tx.Acked(id)
			for _, raw := range tx.Events(id, 1) {
				var e wire.Envelope
				if err := json.Unmarshal(raw, &e); err != nil {
					return err
				}
				events[id] = append(events[id], e)
			}
		}
		return nil
	}))
	return events, acked
}

func (w *world) unsent() string {
	events, acked := w.committed()
	for id, all := range events {
		if acked[id] != int64(len(all)) {
			return fmt.Sprintf("%d of %d events of %s are acknowledged", acked[id], len(all), id)
		}
	}
	return ""
}

// judge holds what the control plane has against what the host has.
func (w *world) judge() {
	w.t.Helper()
	ctx := context.Background()
	items, err := operator.List[wire.EvidenceItem](ctx, w.operator, wire.Fill(wire.PathHostEvidence, w.host.Name), "")
	w.ok(err)
	stored := map[string][]wire.Envelope{}
	chain := evidence.Chain{Hostname: w.host.Name, Key: w.host.Key.Public().(ed25519.PublicKey)}
	for _, item := range items {
		stored[item.Envelope.RolloutID] = append(stored[item.Envelope.RolloutID], item.Envelope)
		chain.Records = append(chain.Records, item.Envelope)
	}
	proven, err := evidence.VerifyChain(chain)
	if err != nil || proven.Records != len(items) || len(proven.Resets) > 0 {
		w.t.Errorf("the host's chain: %d of %d records, %d resets, %v", proven.Records, len(items), len(proven.Resets), err)
	}
	committed, _ := w.committed()
	if len(committed) == 0 || len(stored) != len(committed) {
		w.t.Errorf("the journal has events of %d rollouts, the control plane of %d", len(committed), len(stored))
	}
	for id, events := range committed {
		w.sameEvents(id, events, stored[id])
	}
	w.oneIdentity(ctx)
}

// sameEvents: each is stored once, in order, without a gap, as it was committed.
func (w *world) sameEvents(id string, committed, stored []wire.Envelope) {
	w.t.Helper()
	if len(committed) != len(stored) {
		w.t.Errorf("%s: %d events are committed, %d are stored", id, len(committed), len(stored))
		return
	}
	for i := range committed {
		event, err := wire.DecodeEvent(stored[i].Event)
		if err != nil || event.Seq != int64(i+1) {
			w.t.Errorf("%s: event %d has the number %d: %v", id, i+1, event.Seq, err)
		}
		if committed[i].Signature != stored[i].Signature {
			w.t.Errorf("%s: event %d is stored otherwise than it was committed", id, i+1)
		}
	}
}

// oneIdentity: the token was good for one certificate, which is the host's.
func (w *world) oneIdentity(ctx context.Context) {
	w.t.Helper()
	all, err := operator.List[wire.CertificateView](ctx, w.operator, wire.PathCertificates, "")
	w.ok(err)
	ours := slices.DeleteFunc(all, func(c wire.CertificateView) bool { return c.Name != w.host.Name || c.Role != "agent" })
	if len(ours) != 1 || ours[0].Requester != "token" {
		w.t.Errorf("certificates of the host: %+v", ours)
		return
	}
	text, err := os.ReadFile(filepath.Join(w.stateDir(), "agent-cert.pem"))
	w.ok(err)
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil {
		w.t.Fatal("the host's certificate is none")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	w.ok(err)
	if !strings.EqualFold(cert.SerialNumber.Text(16), ours[0].Serial) {
		w.t.Errorf("the host has the certificate %s, the control plane has issued %s", cert.SerialNumber.Text(16), ours[0].Serial)
	}
}
