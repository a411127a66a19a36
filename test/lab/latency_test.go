package lab

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// TestLatencies measures how long the agent takes from the end of a unit to the
// event, and from a failure to the start of the way back. It runs alone.
func TestLatencies(t *testing.T) {
	s := NewSolo(t, SoloConfig{Probes: healthy})
	const limit = 200 * time.Millisecond
	for i := range 3 {
		good := s.System(fmt.Sprint(2*i+2), "")
		r := s.Release(good)
		s.Until("the switch to end", r, lifecycle.Converged)
		s.within(limit, "switch unit ended → completed",
			s.unitTime("nixfleet-switch", "ExecMainExitTimestamp"), s.eventTime(r, lifecycle.KindActivationCompleted))

		sick := s.System(fmt.Sprint(2*i+3), "probe")
		r = s.Release(sick)
		s.Until("the way back to end", r, lifecycle.Reverted)
		s.within(limit, "failure known → rollback unit started",
			s.eventTime(r, lifecycle.KindFailed), s.unitTime("nixfleet-boot", "ExecMainStartTimestamp"))
	}
}

func (s *Solo) within(limit time.Duration, what string, from, to time.Time) {
	s.T.Helper()
	verdict, took := "PASS", to.Sub(from)
	if took < 0 || took > limit {
		verdict = "FAIL"
		s.T.Errorf("FAIL %s: %s, want at most %s", what, took, limit)
	}
	s.T.Logf("%s %s: %d ms", verdict, what, took.Milliseconds())
}

// unitTime is when a unit's program began or ended.
func (s *Solo) unitTime(unit, property string) time.Time {
	s.T.Helper()
	text := s.Run("systemctl", "show", "--timestamp=us+utc", "-P", property, unit+".service")
	at, err := time.Parse("Mon 2006-01-02 15:04:05.000000 MST", text)
	s.Check(err)
	return at
}

// eventTime is when the host recorded its first event of a kind.
func (s *Solo) eventTime(rollout string, kind lifecycle.Kind) time.Time {
	s.T.Helper()
	events, err := s.Fleet.Events(s.Ctx, rollout, soloHost)
	s.Check(err)
	i := slices.IndexFunc(events, func(e wire.EventView) bool { return e.Kind == kind })
	if i < 0 {
		s.T.Fatalf("FAIL: no %s in %s", kind, rollout)
	}
	event, err := wire.DecodeEvent(events[i].Event)
	s.Check(err)
	return event.At
}
