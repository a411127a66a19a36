package agent

import (
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/trust"
)

func TestClockSuspect(t *testing.T) {
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	later := at.Add(time.Hour)
	for _, test := range []struct {
		name   string
		policy ClockPolicy
		state  ClockState
		marks  trust.Marks
		built  time.Time
		why    string // "": it is believed
	}{
		{"synchronised", ClockRequire, ClockState{Now: later, Synchronised: true}, trust.Marks{ClockFloor: at}, at, ""},
		{"at the floor", ClockRequire, ClockState{Now: at, Synchronised: true}, trust.Marks{ClockFloor: at}, at, ""},
		{"not synchronised, required", ClockRequire, ClockState{Now: later}, trust.Marks{}, time.Time{}, "not synchronised, and --clock-policy is require"},
		{"not synchronised, required, no service", ClockRequire, ClockState{Now: later, Service: false}, trust.Marks{}, time.Time{}, "not synchronised"},
		{"not synchronised, trusted", ClockTrust, ClockState{Now: later, Service: true}, trust.Marks{}, time.Time{}, ""},
		{"not synchronised, a service runs", ClockAuto, ClockState{Now: later, Service: true}, trust.Marks{}, time.Time{}, "a time service runs"},
		{"not synchronised, no service", ClockAuto, ClockState{Now: later}, trust.Marks{}, time.Time{}, ""},
		{"synchronised by a service", ClockAuto, ClockState{Now: later, Service: true, Synchronised: true}, trust.Marks{}, time.Time{}, ""},

		// The floor counts under every policy, and also for a synchronised clock.
		{"before the last synchronised time", ClockTrust, ClockState{Now: at, Synchronised: true}, trust.Marks{ClockFloor: later}, time.Time{}, "it has been 2026-06-01T01:00:00Z already"},
		{"before what was accepted", ClockTrust, ClockState{Now: at, Synchronised: true}, trust.Marks{Manifest: trust.Mark{SignedAt: later}}, time.Time{}, "it has been 2026-06-01T01:00:00Z already"},
		{"before the fleet document that was accepted", ClockAuto, ClockState{Now: at}, trust.Marks{Fleet: trust.Mark{SignedAt: later}}, time.Time{}, "already"},
		{"before this program was written", ClockTrust, ClockState{Now: at}, trust.Marks{}, later, "it has been 2026-06-01T01:00:00Z already"},
		{"the newest of them counts", ClockTrust, ClockState{Now: later}, trust.Marks{ClockFloor: at, Manifest: trust.Mark{SignedAt: later.Add(time.Hour)}}, at, "it has been 2026-06-01T02:00:00Z already"},
		{"the build's date is not known", ClockTrust, ClockState{Now: at}, trust.Marks{}, time.Time{}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := ClockSuspect(test.policy, test.state, test.marks, test.built)
			if (err != nil) != (test.why != "") || err != nil && !strings.Contains(err.Error(), test.why) {
				t.Errorf("got %v, want %q", err, test.why)
			}
		})
	}
}

// C26: nothing that an unsynchronised clock says is ever the floor.
func TestOnlyASynchronisedClockRaisesTheFloor(t *testing.T) {
	r := switching(t)
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		name string
		see  ClockState
		want time.Time
	}{
		{"a boot with a clock that is far ahead", ClockState{Now: at.AddDate(80, 0, 0)}, time.Time{}},
		{"and a service that has not set it yet", ClockState{Now: at.AddDate(80, 0, 0), Service: true}, time.Time{}},
		{"synchronised", ClockState{Now: at, Synchronised: true}, at},
		{"soon after", ClockState{Now: at.Add(floorEvery), Synchronised: true}, at},
		{"later", ClockState{Now: at.Add(2*floorEvery + time.Millisecond), Synchronised: true}, at.Add(2 * floorEvery)},
		{"synchronised, and set back", ClockState{Now: at, Synchronised: true}, at.Add(2 * floorEvery)},
		{"not synchronised any more", ClockState{Now: at.AddDate(1, 0, 0)}, at.Add(2 * floorEvery)},
	} {
		changes := r.view().changes
		facts := host.Facts{Current: was, BootDefault: was, BootID: "b"}
		if errs := reduce(t, r, func(t *turn) error { return t.observe(facts, changes, step.see, false) }); errs[0] != nil {
			t.Fatalf("%s: %v", step.name, errs[0])
		}
		if got := r.view().self.Marks.ClockFloor; !got.Equal(step.want) {
			t.Errorf("%s: the floor is %s, want %s", step.name, got, step.want)
		}
	}
}
