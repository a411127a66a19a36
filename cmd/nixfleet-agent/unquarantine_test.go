package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// agentFiles makes what an agent needs on a machine in a directory, and gives its
// flags.
func agentFiles(t *testing.T) (state, socket string, flags []string) {
	t.Helper()
	dir := t.TempDir()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	pinned := map[string]any{"algorithm": "ed25519", "public": base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}
	roots, err := json.Marshal(map[string]any{"schemaVersion": 1, "ciReleaseKey": map[string]any{"current": pinned}})
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	err = errors.Join(
		os.WriteFile(file("key"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(file("trust.json"), roots, 0o600),
		os.Mkdir(file("state"), 0o700), os.Mkdir(file("machine"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	return file("state"), file("agent.sock"), []string{
		"--control-plane-url=https://127.0.0.1:1", "--machine-id=web-01", "--host-backend=dirhost:" + file("machine"), "--state-dir=" + file("state"),
		"--socket=" + file("agent.sock"), "--ssh-host-key-file=" + file("key"), "--trust-file=" + file("trust.json"), "--health-checks-config=" + file("none"),
	}
}

func TestUnquarantine(t *testing.T) {
	const bad = fleet.Closure("0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-nixos-system-bad")
	state, socket, flags := agentFiles(t)
	j, err := journal.Open(filepath.Join(state, "journal.db"))
	if err == nil {
		q := journal.Quarantine{
			Quarantine: lifecycle.Quarantine{Channel: "stable", Closure: bad, Rollout: "stable@01"},
			Why:        "probes: app", Until: time.Now().Add(time.Hour), Count: 2,
		}
		err = errors.Join(j.Update(func(tx *journal.Tx) error { return tx.PutSelf(journal.Self{Quarantine: []journal.Quarantine{q}}) }), j.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	tell := running(t, socket, flags)
	status := func() string {
		t.Helper()
		code, said := tell("status")
		if code != exitOK {
			t.Fatal(said)
		}
		return said
	}
	const shown = "probes: app, in stable@01; failed here 2 times"
	if said := status(); !strings.Contains(said, string(bad)+" until ") || !strings.Contains(said, shown) {
		t.Errorf("status does not show it:\n%s", said)
	}
	for _, test := range []struct {
		argument string
		code     int
		says     string
	}{
		{"systems/web", exitUse, "/nix/store/<hash>-<name>"},
		{"", exitUse, "/nix/store/<hash>-<name>"},
		{"1qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-nixos-system-good", exitNo, "not in quarantine"},
		{bad.Path(), exitOK, string(bad) + " may be tried again"},
		{bad.Path(), exitNo, "not in quarantine"},
	} {
		if code, said := tell("unquarantine", test.argument); code != test.code || !strings.Contains(said, test.says) {
			t.Errorf("unquarantine %q: %d %s", test.argument, code, said)
		}
	}
	if said := status(); strings.Contains(said, string(bad)) {
		t.Errorf("status still shows it:\n%s", said)
	}
	if code, said := tell("unquarantine"); code != exitOK || !strings.Contains(said, "nothing is in quarantine") {
		t.Errorf("%d %s", code, said)
	}
}

func TestUnquarantineWithoutAnAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	code, said := try(t, "unquarantine", "--socket="+socket)
	if code != exitNo || !strings.Contains(said, "does not answer on "+socket) || !strings.Contains(said, "systemctl status nixfleet-agent") {
		t.Errorf("%d %s", code, said)
	}
	if code, said := try(t, "unquarantine", "a", "b"); code != exitUse {
		t.Errorf("two closures: %d %s", code, said)
	}
}
