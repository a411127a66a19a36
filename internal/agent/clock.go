package agent

import (
	"fmt"
	"os"
	"time"

	"nixfleet/internal/trust"
)

// ClockPolicy says when the machine's clock is believed.
type ClockPolicy string

// The policies. Auto is require where a time service runs, else trust.
const (
	ClockAuto    ClockPolicy = "auto"
	ClockRequire ClockPolicy = "require"
	ClockTrust   ClockPolicy = "trust"
)

// ClockState is what the machine says about its clock.
type ClockState struct {
	Synchronised bool // the kernel says so
	Service      bool // a time service runs
}

// kernelClock reads the state of the machine's clock. It asks no service: those
// may take long to answer.
func kernelClock() ClockState {
	s := ClockState{Synchronised: synchronised()}
	for _, sign := range []string{"/run/systemd/timesync", "/run/chrony", "/run/chronyd.pid", "/run/ntpd.pid", "/var/run/ntpd.pid"} {
		if _, err := os.Stat(sign); err == nil {
			s.Service = true
		}
	}
	return s
}

// clockSuspect says why now must not be believed, or nil. A suspect clock stops
// new targets and nothing else.
func clockSuspect(policy ClockPolicy, s ClockState, now time.Time, m trust.Marks, built time.Time) error {
	if floor := m.Floor(built); now.Before(floor) {
		return fmt.Errorf("the clock says %s, and it has been %s already", now.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339))
	}
	required := policy == ClockRequire || policy == ClockAuto && s.Service
	if required && !s.Synchronised {
		return fmt.Errorf("the kernel's clock is not synchronised (policy %s)", policy)
	}
	return nil
}
