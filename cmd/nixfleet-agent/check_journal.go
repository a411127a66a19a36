package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"nixfleet/internal/agent/journal"
)

// checkJournalCmd is the child process in which a journal is checked: some damage
// raises a fault that no code can catch.
type checkJournalCmd struct {
	File string `arg:"" help:"The journal."`
}

func (c *checkJournalCmd) Run(*env) error { return journal.Check(c.File) }

// checkJournal runs the check in a child. Any bad end of it is damage, but a
// child that cannot be started is none, and neither is one that was asked to end,
// as a service manager asks all of a service's processes.
func checkJournal(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err != nil {
		return nil // none yet, or Open will say
	}
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, self, "check-journal", path)
	cmd.Env = []string{"GOTRACEBACK=none"}
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return nil
	}
	if err := cmd.Wait(); err != nil {
		if strings.Contains(out.String(), journal.ErrLocked.Error()) {
			return fmt.Errorf("%s: %w", path, journal.ErrLocked)
		}
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ctx.Err() != nil || ok && status.Signaled() && (status.Signal() == syscall.SIGTERM || status.Signal() == syscall.SIGINT) {
			return fmt.Errorf("check of %s: %w: %w", path, err, context.Canceled)
		}
		return fmt.Errorf("check of %s: %w: %s", path, err, strings.TrimSpace(out.String()))
	}
	return nil
}
