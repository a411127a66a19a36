package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
)

func TestAWorkerThatPanicsIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := &Agent{log: slog.New(slog.NewTextHandler(&log, nil))}
		runs := 0
		a.supervise(t.Context(), "flaky", func(context.Context) error {
			if runs++; runs < 3 {
				panic("boom")
			}
			return nil
		})
		if runs != 3 || a.panics.Load() != 2 {
			t.Errorf("%d runs, %d panics counted", runs, a.panics.Load())
		}
		if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), "supervise_test.go") {
			t.Errorf("the log does not say where: %s", log.String())
		}
	})
}
