package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nixfleet/internal/agent/guard"
)

// guardCmd is the dead man's switch over the agent. The agent starts it before it
// changes the machine, and the machine at every boot at which something is
// guarded.
type guardCmd struct {
	StateDir    string `default:"/var/lib/nixfleet-agent" placeholder:"DIR" help:"The agent's state directory."`
	HostBackend kind   `default:"auto" placeholder:"KIND" help:"auto, nixos, darwin, or dirhost:<dir> (a machine that lives in a directory)."`
}

func (c *guardCmd) Run(e *env) error {
	limitMemory()
	stateDir, err := filepath.Abs(c.StateDir)
	if err != nil {
		return err
	}
	machine, err := c.HostBackend.open()
	if err != nil {
		return err
	}
	defer machine.Close()
	return guard.Run(e.ctx, guard.Config{
		Machine:     machine,
		StateDir:    stateDir,
		Log:         slog.New(slog.NewJSONHandler(e.err, nil)),
		ReadJournal: readJournal,
	})
}

// guardViewCmd is the child process in which a guard reads the journal.
type guardViewCmd struct {
	File    string `arg:"" help:"The journal."`
	Rollout string `arg:"" help:"The rollout that is guarded."`
}

func (c *guardViewCmd) Run(e *env) error {
	v, err := guard.View(c.File, c.Rollout)
	if err != nil {
		return err
	}
	return json.NewEncoder(e.out).Encode(v)
}

// viewLimit is longer than a journal is waited for that somebody has open.
const viewLimit = 20 * time.Second

// readJournal runs the view in a child. Any bad end of it means that the journal
// cannot be read.
func readJournal(ctx context.Context, file, rollout string) (v guard.Journaled, err error) {
	self, err := os.Executable()
	if err != nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(ctx, viewLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "guard-view", file, rollout)
	cmd.Env = []string{"GOTRACEBACK=none"}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return v, fmt.Errorf("read %s: %w: %s", file, err, strings.TrimSpace(said.String()))
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		return v, fmt.Errorf("read %s: %w", file, err)
	}
	return v, nil
}

// guardCommand is how this program is started as the guard of an agent: by its
// own path, whatever a switch makes of the name that it was called by.
func guardCommand(stateDir string, backend kind) ([]string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return nil, fmt.Errorf("path of this program: %w", err)
	}
	if dir, ok := strings.CutPrefix(string(backend), "dirhost:"); ok {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		backend = kind("dirhost:" + dir)
	}
	return []string{self, "guard", "--state-dir", stateDir, "--host-backend", string(backend)}, nil
}
