package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// KernelClock reads the clock and its state from the kernel, in one call: a clock
// that is set in between cannot lend its date to the other's state.
func KernelClock() ClockState {
	var tx unix.Timex
	if _, err := unix.Adjtimex(&tx); err != nil {
		return ClockState{Now: time.Now(), Service: timeServiceRuns(cgroups)}
	}
	return clockOf(tx, timeServiceRuns(cgroups))
}

func clockOf(tx unix.Timex, service bool) ClockState {
	fraction := time.Duration(tx.Time.Usec) * time.Microsecond
	if tx.Status&unix.STA_NANO != 0 {
		fraction = time.Duration(tx.Time.Usec)
	}
	return ClockState{
		Now:          time.Unix(int64(tx.Time.Sec), int64(fraction)), // 32 bits on some machines
		Synchronised: tx.Status&unix.STA_UNSYNC == 0,
		Service:      service,
	}
}

const cgroups = "/sys/fs/cgroup"

// timeServices are the units that keep a clock right, by all their names.
var timeServices = []string{
	"systemd-timesyncd.service",
	"chronyd.service", "chrony.service",
	"ntpd.service", "ntp.service", "ntpsec.service",
	"ntpd-rs.service",
	"openntpd.service",
}

// timeServiceRuns tells whether a time service has processes. It looks at the
// control groups, under which systemd puts every service, and asks nobody: those
// files never wait, while a service manager or a time service may for long. A
// folder in /run that a stopped service left is no sign of it.
func timeServiceRuns(root string) bool {
	// Control groups of the first version have a tree of systemd's below the root.
	for _, tree := range []string{".", "systemd", "unified"} {
		for _, slices := range []string{"*.slice", "*.slice/*.slice"} {
			folders, err := filepath.Glob(filepath.Join(root, tree, slices))
			if err != nil {
				panic(err) // a bad pattern
			}
			for _, folder := range folders {
				for _, unit := range timeServices {
					processes, err := os.ReadFile(filepath.Join(folder, unit, "cgroup.procs"))
					if err == nil && len(bytes.TrimSpace(processes)) > 0 {
						return true
					}
				}
			}
		}
	}
	return false
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
