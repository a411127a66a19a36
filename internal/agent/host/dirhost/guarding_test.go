package dirhost_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
)

// There is one agent, and none while a guard keeps it down.
func TestThePlaceOfTheAgent(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		open := func() *dirhost.Machine {
			m, err := dirhost.Open(dir, dirhost.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		free := func(is bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			release, err := open().BeAgent(ctx)
			if is != (err == nil) || !is && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("free: %v, want %v", err, is)
			}
			if is {
				release()
			}
		}
		release, err := open().BeAgent(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		free(false)
		guard := open()
		if err := guard.StopAgent(t.Context()); err == nil || !strings.Contains(err.Error(), "this very process") {
			t.Fatalf("a process ends itself: %v", err)
		}
		release()
		free(true)
		for range 2 { // a second time is no harm
			if err := guard.StopAgent(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		free(false)
		for range 2 {
			if err := guard.StartAgent(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		free(true)
	})
}

// A guard is a unit like others: it outlives whoever started it, and its name is
// taken once.
func TestGuardUnit(t *testing.T) {
	dir := t.TempDir()
	m, err := dirhost.Open(dir, dirhost.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Clear(context.Background(), host.SlotGuard) })
	unit := host.GuardUnit{Program: "/bin/sleep", Args: []string{"600"}}
	if err := m.StartGuard(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	other, err := dirhost.Open(dir, dirhost.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if run, err := other.Status(t.Context(), host.SlotGuard); err != nil || run.Phase != host.RunRunning {
		t.Errorf("%+v, %v", run, err)
	}
	if err := other.StartGuard(t.Context(), unit); !errors.Is(err, host.ErrSlotTaken) {
		t.Errorf("a second guard: %v", err)
	}
	if err := other.Clear(t.Context(), host.SlotGuard); err != nil {
		t.Fatal(err)
	}
	if run, err := m.Status(t.Context(), host.SlotGuard); err != nil || run.Phase != host.RunAbsent {
		t.Errorf("%+v, %v", run, err)
	}
}
