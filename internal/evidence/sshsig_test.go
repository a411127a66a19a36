package evidence_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
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
