package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nixfleet/internal/agent/guard"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// TestMain lets this test program be the child process of the program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "guard-view" || os.Args[1] == "check-journal") {
		if filepath.Base(os.Args[2]) == endedCheck {
			syscall.Kill(os.Getpid(), syscall.SIGTERM)
			select {} // the signal ends it
		}
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestGuardOfNothing: there is no lease, so there is nothing to do.
func TestGuardOfNothing(t *testing.T) {
	var out strings.Builder
	dir := t.TempDir()
	code := run(t.Context(), []string{"guard", "--state-dir=" + dir, "--host-backend=dirhost:" + dir}, &out, &out)
	if code != exitOK || !strings.Contains(out.String(), "nothing is guarded") {
		t.Errorf("%d %s", code, out.String())
	}
}

// TestGuardReadsTheJournalInAChild: what is in it, and what is no journal.
func TestGuardReadsTheJournalInAChild(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	mark := json.RawMessage(`{"bootId":"b"}`)
	put := func(rollout string, state lifecycle.State) {
		t.Helper()
		h := lifecycle.Host{Rollout: rollout, State: state, Target: "v2", Prior: "v1", Mutated: true, Policy: fleet.DefaultPolicy()}
		err := j.Update(func(tx *journal.Tx) error {
			return tx.PutRollout(journal.Rollout{Host: h, Steps: map[string]json.RawMessage{"switch": mark}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("soaking", lifecycle.Soaking)
	put("ended", lifecycle.Converged)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for rollout, want := range map[string]guard.Journaled{
		"soaking": {Known: true, Wanted: true},
		"ended":   {Known: true},
		"never":   {},
	} {
		got, err := readJournal(t.Context(), file, rollout)
		if err != nil || got.Known != want.Known || got.Wanted != want.Wanted || got.Known && string(got.Steps["switch"]) != string(mark) {
			t.Errorf("%s: %+v, %v; want %+v", rollout, got, err, want)
		}
	}

	// Cut off, it gives the fault that only a child survives.
	if err := os.Truncate(file, 3*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if got, err := readJournal(t.Context(), file, "soaking"); err == nil {
		t.Errorf("half a journal was read: %+v", got)
	}
	if _, err := readJournal(t.Context(), file+".missing", "soaking"); err == nil {
		t.Error("no journal was read")
	}
}
