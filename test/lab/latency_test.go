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
// event, and from a failure to the first unit of the way back. It runs alone. The
// medians count: what else the machine does must not decide.
func TestLatencies(t *testing.T) {
	s := NewSolo(t, SoloConfig{Probes: healthy, SoakSecs: 1, Policy: map[string]any{"healthFailureSecs": 1}})
	var completed, back []time.Duration
	for i := range 3 {
		good := s.System(fmt.Sprint(2*i+2), "")
		r := s.Release(good)
		s.Until("the switch to end", r, lifecycle.Converged)
		completed = append(completed, s.eventTime(r, lifecycle.KindActivationCompleted).Sub(s.unitTime("nixfleet-switch", "ExecMainExitTimestamp")))

		sick := s.System(fmt.Sprint(2*i+3), "probe")
		r = s.Release(sick)
		s.Until("the way back to end", r, lifecycle.Reverted)
		back = append(back, s.unitTime("nixfleet-boot", "ExecMainStartTimestamp").Sub(s.eventTime(r, lifecycle.KindFailed)))
	}
	s.within("switch unit ended → completed", completed)
	s.within("failure known → rollback unit started", back)
}

// within judges the median of some times.
func (s *Solo) within(what string, took []time.Duration) {
	s.T.Helper()
	const limit = 200 * time.Millisecond
	verdict := "PASS"
	slices.Sort(took)
	if median := took[len(took)/2]; took[0] < 0 || median > limit {
		verdict = "FAIL"
		s.T.Errorf("FAIL %s: %s, want at most %s", what, median, limit)
	}
	s.T.Logf("%s %s: %v", verdict, what, took)
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
