//go:build linux

package crashpoint_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const variable = "NIXFLEET_CRASHPOINT"

// passer builds testdata/passer with the given flags.
func passer(t *testing.T, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "passer")
	args := append(append([]string{"build"}, flags...), "-o", program, "./testdata/passer")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// pass runs a passer that is armed by value.
func pass(t *testing.T, program, value string) (stdout, stderr string, status syscall.WaitStatus) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), variable+"="+value)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if ended := new(exec.ExitError); err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return out.String(), said.String(), cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestAnArmedPointKills(t *testing.T) {
	program := passer(t, "-tags", "crashpoints")
	for _, c := range []struct{ value, passed, said string }{
		{"kill:passer/first", "began\n", "crashpoint: kill at passer/first\n"},
		{"kill:passer/second", "began\npassed the first\n", "crashpoint: kill at passer/second\n"},
		{"kill:passer/second#2", "began\npassed the first\npassed the second\n", "crashpoint: kill at passer/second\n"},
	} {
		stdout, stderr, status := pass(t, program, c.value)
		if stdout != c.passed || stderr != c.said || !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Errorf("%s: passed %q, said %q, ended with %#x", c.value, stdout, stderr, status)
		}
	}
}

// A count that is not reached, and a point that is not there, change nothing. A
// program that this one starts is not armed by chance.
func TestAPointThatIsNotReachedDoesNothing(t *testing.T) {
	program := passer(t, "-tags", "crashpoints")
	const all = "began\npassed the first\npassed the second\npassed it again\n"
	for _, value := range []string{"kill:passer/second#3", "kill:passer/other"} {
		stdout, stderr, status := pass(t, program, value)
		if stdout != all+"handed on: "+variable+"="+value+"\n" || stderr != "" || status != 0 {
			t.Errorf("%s: passed %q, said %q, ended with %#x", value, stdout, stderr, status)
		}
	}
}

func TestAValueThatIsNoneIsRefused(t *testing.T) {
	program := passer(t, "-tags", "crashpoints")
	for _, value := range []string{"", "kill", "kill:", "kill:#2", "die:passer/first", "passer/first", "kill:passer/first#", "kill:passer/first#0", "kill:passer/first#x", "stop:"} {
		stdout, stderr, status := pass(t, program, value)
		if stdout != "" || !strings.Contains(stderr, variable) || !strings.Contains(stderr, "is allowed") || status.ExitStatus() != 2 {
			t.Errorf("%q: passed %q, said %q, ended with %#x", value, stdout, stderr, status)
		}
	}
}

// A process that stops does so at the point, not a little later, and goes on from
// there when it is continued.
func TestAnArmedPointStops(t *testing.T) {
	cmd := exec.Command(passer(t, "-tags", "crashpoints"))
	cmd.Env = append(os.Environ(), variable+"=stop:passer/second")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	ended := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer ended.Stop()
	var info unix.Siginfo
	for errno := unix.EINTR; errno == unix.EINTR; {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if errno, _ = err.(unix.Errno); err != nil && errno != unix.EINTR {
			t.Fatal(err)
		}
	}
	if status := state(t, cmd.Process.Pid); status != "T" {
		t.Errorf("the process is %s, not stopped", status)
	}
	before := make([]byte, 1<<10)
	n, err := read.Read(before)
	if got := string(before[:n]); err != nil || got != "began\npassed the first\n" {
		t.Errorf("before the point: %q, %v", got, err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := out.ReadFrom(read); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "passed the second\npassed it again\n") {
		t.Errorf("behind the point: %q", got)
	}
	if said.String() != "crashpoint: stop at passer/second\n" {
		t.Errorf("said %q", said.String())
	}
}

// state is the letter that the kernel has for what a process does.
func state(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

// An ordinary build does not know the variable, and has neither name nor sentence
// of a point in it.
func TestAnOrdinaryBuildHasNoPoints(t *testing.T) {
	traces := []string{variable, "passer/first", "passer/second", "crashpoint: "}
	ordinary := passer(t, "-trimpath", "-ldflags", "-s -w")
	stdout, stderr, status := pass(t, ordinary, "kill:passer/first")
	if !strings.HasPrefix(stdout, "began\npassed the first\npassed the second\npassed it again\n") || stderr != "" || status != 0 {
		t.Errorf("passed %q, said %q, ended with %#x", stdout, stderr, status)
	}
	armed, err := os.ReadFile(passer(t, "-tags", "crashpoints", "-trimpath", "-ldflags", "-s -w"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(ordinary)
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range traces {
		if bytes.Contains(plain, []byte(trace)) {
			t.Errorf("%q is in an ordinary build", trace)
		}
		if !bytes.Contains(armed, []byte(trace)) {
			t.Errorf("%q is not in a build with points: looking for it shows nothing", trace)
		}
	}
}
