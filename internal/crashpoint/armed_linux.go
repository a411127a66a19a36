//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable arms a point.
const variable = "NIXFLEET_CRASHPOINT"

// armed is the point of this process; its name is "" when there is none.
var armed = mustArm()

// order is a value of the variable.
type order struct {
	value  string
	mode   string // kill or stop
	point  string
	nth    int64
	passed atomic.Int64
}

func mustArm() *order {
	value, set := os.LookupEnv(variable)
	os.Unsetenv(variable) // what is set can be unset
	if !set {
		return &order{}
	}
	o, err := parse(value)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return o
}

// parse reads mode:point or mode:point#n.
func parse(value string) (*order, error) {
	mode, rest, _ := strings.Cut(value, ":")
	point, count, counted := strings.Cut(rest, "#")
	o := &order{value: value, mode: mode, point: point, nth: 1}
	var err error
	if counted {
		o.nth, err = strconv.ParseInt(count, 10, 64)
	}
	if err != nil || o.nth < 1 || point == "" || mode != "kill" && mode != "stop" {
		return nil, fmt.Errorf("%s=%q: kill:POINT or stop:POINT is allowed, and #N behind it for the N-th time", variable, value)
	}
	return o, nil
}

// Here dies or stops if this is the armed point.
func Here(point, durable string) {
	if point != armed.point || armed.passed.Add(1) != armed.nth {
		return
	}
	fmt.Fprintf(os.Stderr, "crashpoint: %s at %s\n", armed.mode, point)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if armed.mode == "stop" {
		// To this very thread, so that it does not run on until another has taken the
		// signal; it stops the whole process all the same.
		unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.SIGSTOP) // of ourselves: it cannot fail
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing is done after it
}

// Environ arms a program that is started with an environment of its own as this
// one was armed.
func Environ() []string {
	if armed.point == "" {
		return nil
	}
	return []string{variable + "=" + armed.value}
}
