package nixos

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"nixfleet/internal/agent/host"
)

// killPatience is how long a program may take to end after SIGTERM.
const killPatience = 10 * time.Second

// command is a run of one of Nix's programs.
type command struct {
	name string
	args []string
	line func(line string) // when set, hears every line of stderr
}

// commandError is a program that did not exit with 0.
type commandError struct {
	name string
	tail string // of its stderr
	err  error
}

func (e *commandError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.name, e.err, e.tail)
}

func (e *commandError) Unwrap() error { return e.err }

// run runs a program to its end and returns its stdout. It has a process group of
// its own, all of which is gone when run returns because ctx ended.
func (m *Machine) run(ctx context.Context, c command) ([]byte, error) {
	cmd := exec.CommandContext(ctx, m.programs[c.name], c.args...)
	cmd.Env = m.env
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killPatience
	var stdout bytes.Buffer
	stderr := &lines{each: c.line}
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	err := cmd.Run()
	stderr.end()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			// Fails when SIGTERM was enough, and then all is well.
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		return nil, fmt.Errorf("%s: %w", c.name, context.Cause(ctx))
	}
	if err != nil {
		return nil, &commandError{name: c.name, tail: host.Tail(stderr.tail), err: err}
	}
	return stdout.Bytes(), nil
}

// lines splits what is written to it, and keeps the end of it.
type lines struct {
	each    func(line string)
	partial []byte
	tail    []byte
}

// lineMax cuts lines that no message is as long as.
const lineMax = 64 << 10

func (l *lines) Write(b []byte) (int, error) {
	l.tail = append(l.tail, b...)
	if len(l.tail) > 4*host.OutputMax {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-host.OutputMax:]...)
	}
	l.partial = append(l.partial, b...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			break
		}
		l.tell(line)
		l.partial = rest
	}
	if len(l.partial) > lineMax {
		l.end()
	}
	return len(b), nil
}

func (l *lines) end() {
	if len(l.partial) > 0 {
		l.tell(l.partial)
		l.partial = nil
	}
}

func (l *lines) tell(line []byte) {
	if l.each != nil {
		l.each(string(line))
	}
}
