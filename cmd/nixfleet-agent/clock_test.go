package main

import (
	"testing"
	"time"

	"nixfleet/internal/agent"
)

func TestStatusSaysWhetherTheClockIsBelieved(t *testing.T) {
	seen := time.Now()
	for _, test := range []struct {
		status agent.Status
		want   string
	}{
		{agent.Status{ClockSynchronised: true}, "synchronised"},
		{agent.Status{ControlPlaneSeenAt: seen, ClockSynchronised: true}, "synchronised, 0s from the control plane's"},
		{agent.Status{ControlPlaneSeenAt: seen, ClockOffsetMs: -2000}, "not synchronised, -2s from the control plane's"},
		{agent.Status{ControlPlaneSeenAt: seen, ClockSynchronised: true, ClockOffsetMs: 3_600_000, ClockSkewed: true}, "synchronised, 1h0m0s from the control plane's, which is too far: one of them is wrong"},
		{agent.Status{ControlPlaneSeenAt: seen, ClockSuspect: "it has been later already"}, "not synchronised, 0s from the control plane's; suspect: it has been later already"},
	} {
		if got := clock(test.status); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
