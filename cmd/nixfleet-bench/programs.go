package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleetdir"
)

// programs measures the agent as a whole program.
func programs(add func(Budget, float64)) error {
	dir, err := os.MkdirTemp("", "nixfleet-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "nixfleet-agent")
	if err := build(binary, "./cmd/nixfleet-agent"); err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	add(budget(figureBinary), float64(info.Size()))

	flags, err := furnish(dir)
	if err != nil {
		return err
	}
	var starts []time.Duration
	for range runs {
		took, err := start(binary, flags)
		if err != nil {
			return err
		}
		starts = append(starts, took)
	}
	slices.Sort(starts)
	add(budget(figureStart), float64(starts[len(starts)/2]))
	return nil
}

// build builds a program as it is released.
func build(binary, command string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, command)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", command, err, out)
	}
	return nil
}

func budget(figure string) Budget {
	i := slices.IndexFunc(budgets, func(b Budget) bool { return b.Figure == figure })
	return budgets[i]
}

// furnish makes all that an agent needs on a host, with 1 000 events in its
// journal, and gives its flags.
func furnish(dir string) ([]string, error) {
	folder, err := fleetdir.Create(filepath.Join(dir, "fleet"), fleetdir.Options{
		Names: []string{"127.0.0.1"}, URL: "https://127.0.0.1:1", Operator: "bench", Now: time.Now()})
	if err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "bench")
	if err != nil {
		return nil, err
	}
	hostKey, state, machine := filepath.Join(dir, "host.key"), filepath.Join(dir, "state"), filepath.Join(dir, "machine")
	if err := os.WriteFile(hostKey, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(machine, 0o755); err != nil {
		return nil, err
	}
	j, err := journal.Open(filepath.Join(state, "journal.db"))
	if err != nil {
		return nil, err
	}
	err = j.Update(func(tx *journal.Tx) error {
		for seq := int64(1); seq <= 1000; seq++ {
			if err := tx.Append("stable@00", seq, []byte(strings.Repeat("e", 700))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, j.Close()); err != nil {
		return nil, err
	}
	return []string{
		"--control-plane-url", "https://127.0.0.1:1", "--machine-id", "bench",
		"--trust-file", folder.Trust(), "--ca-cert", folder.CACert(), "--ssh-host-key-file", hostKey,
		"--state-dir", state, "--host-backend", "dirhost:" + machine,
		"--health-checks-config", filepath.Join(dir, "none.json"), "--socket", filepath.Join(dir, "agent.sock"),
	}, nil
}

// start starts the agent and measures until it says that it is ready.
func start(binary string, flags []string) (time.Duration, error) {
	address := filepath.Join(filepath.Dir(binary), "notify")
	_ = os.Remove(address) // of the run before
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, flags...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 25 * time.Second
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := listener.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	took := time.Duration(0)
	for message := make([]byte, 4096); took == 0; {
		n, err := listener.Read(message)
		if err != nil {
			cancel()
			return 0, fmt.Errorf("the agent did not become ready: %w: %s", err, errors.Join(cmd.Wait(), errors.New(said.String())))
		}
		if strings.Contains(string(message[:n]), "READY=1") {
			took = time.Since(begin)
		}
	}
	cancel()
	_ = cmd.Wait() // it was interrupted
	return took, nil
}
