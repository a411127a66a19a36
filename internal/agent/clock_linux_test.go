package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestATimeServiceIsSeenByItsProcesses(t *testing.T) {
	for name, test := range map[string]struct {
		file, processes string
		runs            bool
	}{
		"systemd-timesyncd":                {"system.slice/systemd-timesyncd.service", "312\n", true},
		"chrony, as NixOS calls it":        {"system.slice/chronyd.service", "312\n313\n", true},
		"chrony, as Debian calls it":       {"system.slice/chrony.service", "312\n", true},
		"ntpd":                             {"system.slice/ntpd.service", "312\n", true},
		"in a slice of its own":            {"system.slice/system-time.slice/openntpd.service", "312\n", true},
		"control groups of version 1":      {"systemd/system.slice/chronyd.service", "312\n", true},
		"both versions":                    {"unified/system.slice/ntpd-rs.service", "312\n", true},
		"stopped, and its folder is there": {"system.slice/chronyd.service", "", false},
		"another service":                  {"system.slice/sshd.service", "312\n", false},
		"a service of a container":         {"machine.slice/c.scope/system.slice/chronyd.service", "312\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			folder := filepath.Join(root, test.file)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(test.processes), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := timeServiceRuns(root); got != test.runs {
				t.Errorf("runs: %t", got)
			}
		})
	}
	if timeServiceRuns(filepath.Join(t.TempDir(), "absent")) {
		t.Error("a machine without control groups has a time service")
	}
}

func TestWhatTheKernelSaysOfItsClock(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for name, test := range map[string]struct {
		tx   unix.Timex
		want ClockState
	}{
		"synchronised":     {unix.Timex{Time: unix.Timeval{Sec: at.Unix(), Usec: 250_000}, Status: unix.STA_PLL}, ClockState{Now: at.Add(250 * time.Millisecond), Synchronised: true}},
		"in nanoseconds":   {unix.Timex{Time: unix.Timeval{Sec: at.Unix(), Usec: 250_000}, Status: unix.STA_PLL | unix.STA_NANO}, ClockState{Now: at.Add(250 * time.Microsecond), Synchronised: true}},
		"not synchronised": {unix.Timex{Time: unix.Timeval{Sec: at.Unix()}, Status: unix.STA_UNSYNC | unix.STA_NANO}, ClockState{Now: at}},
	} {
		if got := clockOf(test.tx, false); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
	if off := time.Since(KernelClock().Now).Abs(); off > time.Minute {
		t.Errorf("the kernel's clock and the program's are %s apart", off)
	}
}
