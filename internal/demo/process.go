package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// supervisor does for the demo's daemons what an init system does: it starts
// them and starts them again when they end, each in a process group of its own
// with its output in a file. Its context ends with the demo's, or with the reason
// when a daemon does not stay up. Then nothing is started any more; what runs is
// the reaper's to end.
type supervisor struct {
	folder string // the demo's

	ctx    context.Context
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup
}

const (
	restartAfter = 400 * time.Millisecond
	// A daemon that ends by itself this often within crashWindow of its start
	// does not work, and neither would the demo.
	crashLimit  = 5
	crashWindow = 3 * time.Second
)

func newSupervisor(ctx context.Context, folder string) *supervisor {
	s := &supervisor{folder: folder}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// daemon is one supervised program.
type daemon struct {
	name string
	log  string // file that its output is appended to
	argv []string

	mu     sync.Mutex
	pid    int // 0 between two lives
	killed bool
}

// run starts a daemon and keeps it running until the supervisor stops.
func (s *supervisor) run(name, log string, argv ...string) *daemon {
	d := &daemon{name: name, log: log, argv: argv}
	s.wait.Go(func() {
		for crashes := 0; ; {
			began := time.Now()
			killed, err := s.once(d)
			switch {
			case s.ctx.Err() != nil:
				return
			case killed || time.Since(began) > crashWindow:
				crashes = 0
			default:
				crashes++
			}
			if crashes == crashLimit {
				s.cancel(fmt.Errorf("%s does not stay up: %w; it said:\n%s", name, err, tail(log)))
				return
			}
			select {
			case <-time.After(restartAfter):
			case <-s.ctx.Done():
				return
			}
		}
	})
	return d
}

// once is one life of a daemon.
func (s *supervisor) once(d *daemon) (killed bool, err error) {
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer out.Close()
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(plainEnviron(), daemonMark+"="+filepath.Join(s.folder, d.name))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	d.mu.Lock()
	d.pid, d.killed = cmd.Process.Pid, false
	d.mu.Unlock()
	err = cmd.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pid = 0
	return d.killed, err
}

// kill ends the daemon as nothing can prepare for. The supervisor starts it
// again.
func (d *daemon) kill() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pid == 0 {
		return fmt.Errorf("%s does not run", d.name)
	}
	d.killed = true
	return syscall.Kill(d.pid, syscall.SIGKILL)
}

// freeze stops the daemon in its tracks, and thaw lets whatever runs in its place
// go on. Nobody starts a frozen one again: for its supervisor it runs.
func (d *daemon) freeze() error { return d.signal(syscall.SIGSTOP) }

func (d *daemon) thaw() error { return d.signal(syscall.SIGCONT) }

func (d *daemon) signal(s syscall.Signal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pid == 0 {
		return fmt.Errorf("%s does not run", d.name)
	}
	return syscall.Kill(d.pid, s)
}

// tail is the last of what a daemon said.
func tail(log string) string {
	raw, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2000):])
}

// plainEnviron is this process's environment without what nixfleet's programs
// read from it, their own settings and a service manager's: a demo is the same
// everywhere.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
			return true
		}
		return strings.HasPrefix(name, "NIXFLEET_")
	})
}
