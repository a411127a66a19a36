package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// synchronised asks the kernel whether something keeps its clock right.
func synchronised() bool {
	var tx unix.Timex
	_, err := unix.Adjtimex(&tx)
	return err == nil && tx.Status&unix.STA_UNSYNC == 0
}

// suspension notices that the machine slept.
type suspension struct{ slept time.Duration }

// since tells whether the machine slept since it was asked last.
func (s *suspension) since() bool {
	var boot, running unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &running) != nil {
		return false
	}
	slept := time.Duration(boot.Nano() - running.Nano())
	more := slept-s.slept > time.Second
	s.slept = slept
	return more
}
