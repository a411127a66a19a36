package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/trust"
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

func TestClockSuspect(t *testing.T) {
	floor := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	marks := trust.Marks{ClockFloor: floor}
	for _, test := range []struct {
		name    string
		policy  ClockPolicy
		state   ClockState
		now     time.Time
		suspect bool
	}{
		{"synchronised", ClockRequire, ClockState{Synchronised: true}, floor.Add(time.Hour), false},
		{"not synchronised, required", ClockRequire, ClockState{}, floor.Add(time.Hour), true},
		{"not synchronised, trusted", ClockTrust, ClockState{}, floor.Add(time.Hour), false},
		{"not synchronised, a service runs", ClockAuto, ClockState{Service: true}, floor.Add(time.Hour), true},
		{"not synchronised, no service", ClockAuto, ClockState{}, floor.Add(time.Hour), false},
		{"below the floor, trusted", ClockTrust, ClockState{Synchronised: true}, floor.Add(-time.Second), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := clockSuspect(test.policy, test.state, test.now, marks, time.Time{})
			if (err != nil) != test.suspect {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := clockSuspect(ClockTrust, ClockState{}, floor, trust.Marks{}, floor.Add(time.Hour)); err == nil {
		t.Error("a clock from before this program was written is believed")
	}
}
