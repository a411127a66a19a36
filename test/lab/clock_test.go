package lab

import (
	"encoding/json"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// TestClock is a host whose clock nobody vouches for: by a time service that has not
// set it, and by a time that it has been before. It takes no new target then, and
// goes on with everything else.
func TestClock(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{})
	st, ok := s.Status()
	if !ok {
		t.Fatal("FAIL: the agent does not answer")
	}
	on := s.First
	// A real unit of that name; its program is no time service, and sets nothing.
	s.Run("systemd-run", "--quiet", "--unit=chronyd", "sleep", "infinity")
	second := s.System("2", "")
	r := s.Release(second)
	if st.ClockSynchronised {
		s.Ended("a time service runs, and the kernel calls its clock synchronised", r, lifecycle.Converged, "", second)
		on = second
	} else {
		why := s.Waits(wire.WaitingOnClock)
		s.Verdict("a time service runs that has not set the clock: "+why, r, On(on))
		s.Run("systemctl", "stop", "chronyd")
		s.Ended("no time service runs", r, lifecycle.Converged, "", second)
		on = second
	}

	const marks = "/var/lib/nixfleet-agent/marks.json"
	plant := func(floor time.Time) {
		t.Helper()
		s.Run("systemctl", "stop", agentUnitName)
		var all map[string]any
		s.Check(json.Unmarshal([]byte(s.Run("cat", marks)), &all))
		if all["clockFloor"] = floor; floor.IsZero() {
			delete(all, "clockFloor")
		}
		text, err := json.Marshal(all)
		s.Check(err)
		s.Put(marks, string(text), 0o600)
		// The higher of file and journal wins: this one must be the only one.
		if floor.IsZero() {
			s.Run("rm", "/var/lib/nixfleet-agent/journal.db")
		}
		s.Run("systemctl", "start", agentUnitName)
	}
	plant(time.Now().AddDate(70, 0, 0).UTC())
	third := s.System("3", "")
	r = s.Release(third)
	why := s.Waits(wire.WaitingOnClock)
	s.Verdict("the clock is behind a time that it has been: "+why, r, On(on))
	plant(time.Time{})
	s.Ended("the clock is what it can be", r, lifecycle.Converged, "", third)
}
