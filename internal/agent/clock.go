package agent

import (
	"fmt"
	"time"

	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// ClockPolicy says when the machine's clock is believed.
type ClockPolicy string

// The policies. Auto is require where a time service runs, else trust.
const (
	ClockAuto    ClockPolicy = "auto"
	ClockRequire ClockPolicy = "require"
	ClockTrust   ClockPolicy = "trust"
)

// ClockState is what the machine says about its clock at one moment.
type ClockState struct {
	Now          time.Time
	Synchronised bool // the kernel says so
	Service      bool // a time service runs
}

// ClockSuspect says why the clock must not be believed, or nil. A suspect clock
// stops new targets and nothing else.
func ClockSuspect(policy ClockPolicy, s ClockState, m trust.Marks, built time.Time) error {
	if floor := m.Floor(built); s.Now.Before(floor) {
		return fmt.Errorf("the clock says %s, and it has been %s already", s.Now.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339))
	}
	switch {
	case s.Synchronised:
	case policy == ClockRequire:
		return fmt.Errorf("the kernel's clock is not synchronised, and --clock-policy is %s", policy)
	case policy == ClockAuto && s.Service:
		return fmt.Errorf("the kernel's clock is not synchronised, and a time service runs that should do it (--clock-policy is %s)", policy)
	}
	return nil
}

// floorEvery is how far the clock's floor may be behind: raising it writes a file.
const floorEvery = time.Hour

// floor is what the clock's floor is to become, and whether it is due. Only a
// synchronised clock raises it: what one that is wrong says would count for ever.
func (s ClockState) floor(m trust.Marks) (floor time.Time, due bool) {
	return s.Now.UTC().Truncate(time.Second), s.Synchronised && s.Now.Sub(m.ClockFloor) > floorEvery
}

// clockWait is under which name a suspect clock stands among what is waited for.
const clockWait = "clock"

// checkClock looks at the clock and says why it must not be believed, or nil.
// While it must not, the host says that it waits for it.
func (a *Agent) checkClock(m trust.Marks) (ClockState, error) {
	s := a.clock()
	err := ClockSuspect(a.cfg.ClockPolicy, s, m, a.cfg.BuiltAt)
	switch {
	case err != nil && a.waits.set(clockWait, wire.WaitingOnClock, err.Error()):
		a.log.Warn("the clock is suspect: no new targets are taken", "err", err)
	case err == nil && a.waits.clear(clockWait):
		a.log.Info("the clock is believed again")
	}
	return s, err
}

// skew is how far the clock is ahead of the control plane's, and whether that is
// further than it should be. It is for reports: nothing is set by it, and nothing
// decided, because the control plane is no time server.
func (a *Agent) skew() (offset time.Duration, beyond bool) {
	offset = a.uplink.ClockOffset()
	return offset, ClockSkewed(offset, a.cfg.MaxClockSkew)
}

// ClockSkewed tells whether a clock that is so far from the control plane's is
// further than it should be; a limit of 0 is none.
func ClockSkewed(offset, limit time.Duration) bool { return limit > 0 && offset.Abs() > limit }

// watchSkew logs when the clock begins to be far from the control plane's, and
// when that ends.
func (a *Agent) watchSkew() {
	offset, beyond := a.skew()
	if a.skewed.Swap(beyond) != beyond {
		a.log.Warn("the clock and the control plane's", "offset", offset.String(), "limit", a.cfg.MaxClockSkew.String(), "beyond", beyond)
	}
}
