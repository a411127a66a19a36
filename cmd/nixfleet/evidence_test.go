package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nixfleet/internal/evidence"
	"nixfleet/internal/evidence/bundle"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// auditedHost seals records as its agent does.
type auditedHost struct {
	name    string
	key     ed25519.PrivateKey
	records []wire.Envelope
}

func newAuditedHost(name string, seed byte) *auditedHost {
	return &auditedHost{name: name, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
}

func (h *auditedHost) public() ed25519.PublicKey { return h.key.Public().(ed25519.PublicKey) }

// report seals an event for each body, after the one with the given hash.
func (h *auditedHost) report(prev string, bodies ...lifecycle.Body) error {
	for _, body := range bodies {
		raw, err := wire.EncodeEvent(lifecycle.Event{Seq: int64(len(h.records) + 1), At: time.Unix(0, 0).UTC(), Body: body})
		if err != nil {
			return err
		}
		e, hash, err := evidence.Seal(evidence.Record{Hostname: h.name, RolloutID: "stable@ab", Event: raw, BootID: "b", AgentVersion: "1", RecordedAt: "2026-11-23T10:00:00Z", Prev: prev}, h.key)
		if err != nil {
			return err
		}
		if body.Kind() == lifecycle.KindConverged {
			if e.SSHSig, err = evidence.SSHSign(hash, h.key); err != nil {
				return err
			}
		}
		h.records, prev = append(h.records, e), hash
	}
	return nil
}

// auditedFleet are two hosts with records, and the fleet document that declares
// their keys.
func auditedFleet() (hosts []*auditedHost, doc []byte, err error) {
	f := fleet.Fleet{SchemaVersion: fleet.SchemaVersion, Hosts: map[string]fleet.Host{"mute": {}}}
	for i, name := range []string{"web-01", "web-02"} {
		h := newAuditedHost(name, byte(i+1))
		if err := h.report(evidence.Genesis, lifecycle.DispatchAck{}, lifecycle.Observed{}, lifecycle.HasConverged{}, lifecycle.Observed{}); err != nil {
			return nil, nil, err
		}
		hosts = append(hosts, h)
		line := identity.FormatPublicKey(h.public(), "")
		f.Hosts[name] = fleet.Host{Pubkey: &line}
	}
	if err := hosts[1].report(evidence.Genesis, lifecycle.Notice{Code: lifecycle.NoticeChainReset, Detail: "the journal was lost"}); err != nil {
		return nil, nil, err
	}
	doc, err = json.Marshal(f)
	return hosts, doc, err
}

// writeBundle is the command `bundle FOLDER` of scripts: it writes the evidence of
// web-01 and web-02 there, and beside it fleet.json, web-01.pub and web-02.pub.
func writeBundle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: bundle FOLDER")
	}
	hosts, doc, err := auditedFleet()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("fleet.json"), doc, 0o644))
	records, keys := map[string][]wire.Envelope{}, map[string]ed25519.PublicKey{}
	for _, h := range hosts {
		records[h.name], keys[h.name] = h.records, h.public()
		ts.Check(os.WriteFile(ts.MkAbs(h.name+".pub"), []byte(identity.FormatPublicKey(h.public(), "root@"+h.name)+"\n"), 0o644))
	}
	b, err := bundle.New(records, keys)
	ts.Check(err)
	ts.Check(b.Write(ts.MkAbs(args[0])))
}

// What is exported verifies, with nixfleet and with ssh-keygen.
func TestEvidenceExport(t *testing.T) {
	p := newPlane(t)
	hosts, doc, err := auditedFleet()
	if err != nil {
		t.Fatal(err)
	}
	p.set(wire.PathFleet, json.RawMessage(doc))
	for _, h := range hosts {
		p.set(wire.Fill(wire.PathHost, h.name), wire.HostView{Hostname: h.name})
		var pages []any
		for i, e := range h.records {
			next := string(rune('1' + i))
			if i == len(h.records)-1 {
				next = ""
			}
			pages = append(pages, wire.NewPage([]wire.EvidenceItem{{LogID: int64(i + 1), Envelope: e}}, next))
		}
		p.set(wire.Fill(wire.PathHostEvidence, h.name), pages)
	}
	dir := t.TempDir()
	trusted := filepath.Join(dir, "fleet.json")
	if err := os.WriteFile(trusted, doc, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{filepath.Join(dir, "audit"), filepath.Join(dir, "audit.tar.gz")} {
		code, said, errOut := p.ask(t, "evidence", "export", "web-01", "web-02", "web-01", "--out", out)
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errOut)
		}
		wantHas(t, said, "web-01: 4 records, 1 signed heads\nweb-02: 5 records, 1 signed heads\n", out)
		code, said, errOut = nixfleet(t, "evidence", "verify", out, "--fleet", trusted)
		if code != 0 {
			t.Errorf("exit %d: %s%s", code, said, errOut)
		}
		wantHas(t, said, "web-01: good, 4 records, 1 signed heads", "a new chain begins at record 5, as the host says (chain-reset): the journal was lost")
		if code, _, errOut := p.ask(t, "evidence", "export", "web-01", "--out", out); code != 2 || !strings.Contains(errOut, "name a path where nothing is yet") {
			t.Errorf("it was replaced: exit %d: %s", code, errOut)
		}
	}
	heads, err := filepath.Glob(filepath.Join(dir, "audit", "web-01", "heads", "*.sig"))
	if err != nil || len(heads) != 1 {
		t.Fatalf("%v %v", heads, err)
	}
	head, err := os.ReadFile(strings.TrimSuffix(heads[0], ".sig"))
	if err != nil {
		t.Fatal(err)
	}
	for identity, good := range map[string]bool{"web-01": true, "web-02": false} {
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", filepath.Join(dir, "audit", "allowed_signers"), "-I", identity, "-n", "nixfleet-evidence", "-s", heads[0])
		cmd.Stdin = bytes.NewReader(head)
		if out, err := cmd.CombinedOutput(); (err == nil) != good {
			t.Errorf("ssh-keygen about %s: %v: %s", identity, err, out)
		}
	}

	code, said, _ := p.ask(t, "evidence", "export", "web-01", "--out", filepath.Join(dir, "json"), "--json")
	var written []exported
	if err := json.Unmarshal([]byte(said), &written); code != 0 || err != nil || len(written) != 1 || written[0] != (exported{"web-01", 4, 1}) {
		t.Errorf("exit %d, %v: %s", code, err, said)
	}
	missing := filepath.Join(dir, "missing")
	if code, _, errOut := p.ask(t, "evidence", "export", "web-99", "--out", missing); code != 1 || !strings.Contains(errOut, "there is no host web-99") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}
