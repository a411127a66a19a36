package main

import (
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/wire"
)

// shown is what a status says to a person.
func shown(t *testing.T, s agent.Status) string {
	t.Helper()
	var out strings.Builder
	if err := print(&out, s); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestStatusSaysOfEveryWaitWhatSinceWhenAndWhy.
func TestStatusSaysOfEveryWaitWhatSinceWhenAndWhy(t *testing.T) {
	since := time.Date(2026, 6, 1, 12, 0, 0, 0, time.Local)
	for _, on := range []wire.WaitingOn{
		wire.WaitingOnControlPlane, wire.WaitingOnCache, wire.WaitingOnDiskNix, wire.WaitingOnDiskBoot, wire.WaitingOnSwitchLock,
		wire.WaitingOnClock, wire.WaitingOnReboot, wire.WaitingOnWindow, wire.WaitingOnSoak, wire.WaitingOnProbe("app"), wire.WaitingOnConfirm,
		wire.WaitingOnPersist, wire.WaitingOnHold, wire.WaitingOnQuarantine, wire.WaitingOnAcknowledgement,
	} {
		said := shown(t, agent.Status{WaitingOn: []agent.Waiting{{On: on, Since: since, Why: "first\nsecond\x1b[2J", Worker: "prepare stable@01"}}})
		for _, want := range []string{on.Sentence() + " Since 2026-06-01 12:00:00.\n", "  prepare stable@01: first; second [2J\n"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: it does not say %q:\n%s", on, want, said)
			}
		}
		if strings.Contains(said, wire.WaitingOnNone.Sentence()) || strings.Contains(said, "not waiting") {
			t.Errorf("%s: it says that nothing is waited for:\n%s", on, said)
		}
	}
	if said := shown(t, agent.Status{}); !strings.Contains(said, "waiting        not waiting for anything\n") {
		t.Errorf("of no wait:\n%s", said)
	}
}

// TestStatusCallsAnErrorWithoutANameNoRest: what is tried again is not "nothing".
func TestStatusCallsAnErrorWithoutANameNoRest(t *testing.T) {
	said := shown(t, agent.Status{WaitingOn: []agent.Waiting{{On: wire.WaitingOnNone, Why: "look at the machine: no such file", Worker: "switch stable@01"}}})
	if !strings.Contains(said, "Trying again what did not succeed.") || !strings.Contains(said, "switch stable@01: look at the machine") || strings.Contains(said, "Not waiting") {
		t.Error(said)
	}
}

// TestStatusSaysOnceWhatManyPartsWaitFor, since the first of them did.
func TestStatusSaysOnceWhatManyPartsWaitFor(t *testing.T) {
	since := time.Date(2026, 6, 1, 12, 0, 0, 0, time.Local)
	said := shown(t, agent.Status{WaitingOn: []agent.Waiting{
		{On: wire.WaitingOnControlPlane, Worker: "heartbeat", Why: "no route", Since: since.Add(time.Minute)},
		{On: wire.WaitingOnSoak, Since: since},
		{On: wire.WaitingOnControlPlane, Worker: "orders", Why: "refused", Since: since},
	}})
	if strings.Count(said, wire.WaitingOnControlPlane.Sentence()+" Since 2026-06-01 12:00:00.") != 1 || strings.Count(said, wire.WaitingOnControlPlane.Sentence()) != 1 ||
		!strings.Contains(said, "heartbeat: no route") || !strings.Contains(said, "orders: refused") {
		t.Error(said)
	}
}

func TestStatusSaysHowFarAFetchIsAndThatThereIsNoCertificate(t *testing.T) {
	said := shown(t, agent.Status{Rollout: "stable@01", Fetched: &host.FetchProgress{Paths: 12, Bytes: 3 << 20}})
	for _, want := range []string{"12 store paths so far, 3.0 MiB", "none that can be used"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}
