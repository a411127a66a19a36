package guard

import (
	"fmt"
	"time"

	"nixfleet/internal/lifecycle"
)

// Sight is what a guard sees of a machine at one moment. Times are of the
// machine's clock.
type Sight struct {
	Now    time.Duration
	BootID string
	Since  time.Duration // a guard began to watch this lease in this boot

	Touched   time.Duration // the agent's last sign of life in this boot
	Alive     bool          // whether there was one
	Switching bool          // a switch is under way now
	Switched  time.Duration // one was last seen under way; 0: never
}

// Verdict is what a guard does next.
type Verdict int

// The verdicts.
const (
	Watch Verdict = iota
	Act
	StandDown // nothing is at stake before the next boot
)

// SwitchTime is how long the first sign of life may take beyond the usual: the
// agent may be waiting for the very switch that it began.
const SwitchTime = lifecycle.SwitchSecs * time.Second

// Decide says what a guard does about a lease, and when it acts why. An agent that
// lives acts before its guard does: the deadlines in the lease are later than its
// own.
func Decide(l Lease, s Sight) (Verdict, string) {
	sameBoot := l.BootID == s.BootID
	if l.NextBoot && sameBoot {
		return StandDown, "nothing is at stake before the next boot"
	}
	if by, ok := deadline(l, s, sameBoot); ok && s.Now >= by {
		return Act, "nothing confirmed the new system in time"
	}
	if s.Switching {
		return Watch, ""
	}
	alive := time.Duration(l.AliveSecs) * time.Second
	if !s.Alive {
		if s.Now-max(s.Since, s.Switched) >= SwitchTime+alive {
			return Act, "the agent gave no sign of life"
		}
		return Watch, ""
	}
	// A switch may keep the agent from its work; the one that it starts at its end
	// has the usual time.
	if silence := s.Now - max(s.Touched, s.Switched); silence >= alive {
		return Act, fmt.Sprintf("the agent was silent for %d s", int64(silence/time.Second))
	}
	return Watch, ""
}

// deadline is when the new system must have been confirmed. A lease of another
// boot counts from the beginning of this one, whatever it says about that one.
func deadline(l Lease, s Sight, sameBoot bool) (by time.Duration, ok bool) {
	switch {
	case !sameBoot && l.WindowSecs > 0:
		return s.Since + time.Duration(l.WindowSecs)*time.Second, true
	case sameBoot && l.ConfirmBy > 0 && !l.Confirmed:
		return time.Duration(l.ConfirmBy), true
	}
	return 0, false
}
