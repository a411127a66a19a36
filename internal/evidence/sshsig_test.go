package evidence_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixfleet/internal/evidence"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
)

// TestStockToolsVerify: ssh-keygen checks what a host signed, and refuses another
// hash, another namespace and another key.
func TestStockToolsVerify(t *testing.T) {
	head := headOf(t, chainOf(t, 3))
	armoured, err := evidence.SSHSign(head, hostKey(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	signature := write("sig", []byte(armoured))
	signers := write("signers", []byte("web-01 "+identity.FormatPublicKey(publicOf(hostKey(t)), "")+"\n"))
	strangers := write("strangers", []byte("web-01 "+identity.FormatPublicKey(publicOf(strangersKey()), "")+"\n"))

	verify := func(signers, namespace string, message []byte) error {
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "web-01", "-n", namespace, "-s", signature)
		cmd.Stdin = bytes.NewReader(message)
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := verify(signers, evidence.SSHNamespace, evidence.SSHMessage(head)); err != nil {
		t.Error(err)
	}
	if err := evidence.SSHVerify(head, armoured, publicOf(hostKey(t))); err != nil {
		t.Error(err)
	}
	if err := verify(signers, evidence.SSHNamespace, evidence.SSHMessage(evidence.Genesis)); err == nil {
		t.Error("another hash was good")
	}
	if err := verify(signers, "file", evidence.SSHMessage(head)); err == nil {
		t.Error("another namespace was good")
	}
	if err := verify(strangers, evidence.SSHNamespace, evidence.SSHMessage(head)); err == nil {
		t.Error("another key was good")
	}
}

// TestSSHVerify: it refuses what ssh-keygen refuses, also what another program
// signed with the right key.
func TestSSHVerify(t *testing.T) {
	head, key := headOf(t, chainOf(t, 3)), publicOf(hostKey(t))
	good := sshSign(t, head)
	dir := t.TempDir()
	secret, err := os.ReadFile("testdata/vectors/ssh_host_ed25519_key")
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key")
	if err := os.WriteFile(keyFile, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	bySSHKeygen := func(namespace, hash string) string {
		cmd := exec.Command("ssh-keygen", "-Y", "sign", "-f", keyFile, "-n", namespace, "-O", "hashalg="+hash)
		cmd.Stdin = bytes.NewReader(evidence.SSHMessage(head))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if err := evidence.SSHVerify(head, bySSHKeygen(evidence.SSHNamespace, "sha512"), key); err != nil {
		t.Errorf("what ssh-keygen signed: %v", err)
	}
	for name, armoured := range map[string]string{
		"nothing":           "",
		"no armour":         "U1NIU0lH",
		"something behind":  good + "x",
		"not base64":        strings.Replace(good, "U1NI", "U1N!", 1),
		"other magic":       strings.Replace(good, "U1NI", "U1NJ", 1),
		"a part":            string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: []byte("SSHSIG\x00\x00\x00\x01")})),
		"another hash":      sshSign(t, evidence.Genesis),
		"another namespace": bySSHKeygen("file", "sha512"),
		"another digest":    bySSHKeygen(evidence.SSHNamespace, "sha256"),
	} {
		if err := evidence.SSHVerify(head, armoured, key); !errors.Is(err, evidence.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := evidence.SSHVerify(head, good, publicOf(strangersKey())); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
}

func TestCheckpointDue(t *testing.T) {
	for _, kind := range []lifecycle.Kind{lifecycle.KindConverged, lifecycle.KindFailed, lifecycle.KindRollbackComplete} {
		if !evidence.CheckpointDue(7, kind) {
			t.Errorf("not at %s", kind)
		}
	}
	for n, want := range map[int64]bool{1: false, 999: false, 1000: true, 1001: false, 3000: true} {
		if got := evidence.CheckpointDue(n, lifecycle.KindProbeResult); got != want {
			t.Errorf("record %d: %v", n, got)
		}
	}
}
