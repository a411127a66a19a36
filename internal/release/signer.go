package release

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"nixfleet/internal/trust"
)

// KeySigner signs with a key in memory.
type KeySigner struct{ trust.Signer }

// Sign makes the raw signature.
func (s KeySigner) Sign(_ context.Context, canonical []byte) ([]byte, error) {
	return s.Signer.Sign(canonical)
}

// CommandSigner has a command sign, for keys in a TPM, an HSM or elsewhere. The
// shell runs it with the canonical bytes in the file NIXFLEET_INPUT; it writes
// the raw 64 bytes of the signature to the file NIXFLEET_OUTPUT.
type CommandSigner string

// Sign runs the command.
func (c CommandSigner) Sign(ctx context.Context, canonical []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "nixfleet-sign-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "input"), filepath.Join(dir, "output")
	if err := os.WriteFile(in, canonical, 0o600); err != nil {
		return nil, err
	}
	if err := Hook(ctx, string(c), "NIXFLEET_INPUT="+in, "NIXFLEET_OUTPUT="+out); err != nil {
		return nil, err
	}
	sig, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("the command wrote no signature: %w", err)
	}
	return sig, nil
}

// Hook has the shell run a command of the owner's, with more in its environment.
// What it writes is part of the error when it fails.
func Hook(ctx context.Context, command string, environ ...string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), environ...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("command %q: %w\n%s", command, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
