package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// endedCheck is a journal whose check somebody asks to end: see TestMain.
const endedCheck = "ended.db"

// TestACheckThatIsEndedFindsNoDamage: somebody stops the service while its journal
// is looked at.
func TestACheckThatIsEndedFindsNoDamage(t *testing.T) {
	for name, ended := range map[string]bool{endedCheck: true, "damaged.db": false} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, make([]byte, 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkJournal(t.Context(), file); err == nil || errors.Is(err, context.Canceled) != ended {
			t.Errorf("%s: %v", name, err)
		}
	}
}
