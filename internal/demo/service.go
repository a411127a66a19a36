package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A machine of a demo runs services: processes of their own, with settings in the
// closure. What an init system does with them is done by RestartServices.

// service is one of them.
type service struct {
	name     string
	settings string // file in the closure
	serve    func(ctx context.Context, settings []byte, m machineSettings, ready func()) error
}

// services are those of every machine, in the order of their start.
var services = []service{
	{"network", networkFile, serveNetwork},
	{"web", webFile, serveWeb},
}

// machineSettings are what a machine is, whatever system it runs.
type machineSettings struct {
	Web     string `json:"web"`     // address of its web service
	Uplinks routes `json:"uplinks"` // the address at which its agent looks for each of them
	Lock    string `json:"lock"`    // held by the demo for as long as it lives
}

const machineFile = "etc/machine.json"

// Serve is the life of a service of the machine in root. It says on out when it is
// ready. It ends with ctx, and by itself within a quarter of a second once nobody
// holds the lock, because then the demo is dead.
func Serve(ctx context.Context, name, root, closure string, out io.Writer) error {
	raw, err := os.ReadFile(filepath.Join(root, machineFile))
	if err != nil {
		return err
	}
	var m machineSettings
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("%s: %w", machineFile, err)
	}
	for _, s := range services {
		if s.name != name {
			continue
		}
		settings, err := os.ReadFile(filepath.Join(closure, s.settings))
		if err != nil {
			return err
		}
		ctx, cancel := whileHeld(ctx, m.Lock)
		defer cancel()
		if err := s.serve(ctx, settings, m, func() { fmt.Fprintln(out, ready) }); err != nil {
			return fmt.Errorf("%s with %s of %s: %w", name, s.settings, closure, err)
		}
		return nil
	}
	return fmt.Errorf("there is no service %q", name)
}

// ready is what a service says when it is.
const ready = "ready"

// whileHeld is ctx, ended when nobody holds the lock.
func whileHeld(ctx context.Context, lock string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for held(lock) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// serviceLimit is how long services may take to end, and to begin.
const serviceLimit = 10 * time.Second

// RestartServices does what an init system does when a closure goes live, or the
// machine in root is turned on with it: services that do not run with the
// closure's settings are ended and begun anew, each in a session of its own. It
// returns when all are ready.
func RestartServices(ctx context.Context, root, closure string) error {
	ctx, cancel := context.WithTimeout(ctx, serviceLimit)
	defer cancel()
	for _, s := range services {
		if err := s.restart(ctx, root, closure); err != nil {
			return fmt.Errorf("restart the service %s: %w", s.name, err)
		}
	}
	return nil
}

func (s service) restart(ctx context.Context, root, closure string) error {
	settings, err := os.ReadFile(filepath.Join(closure, s.settings))
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "run/services", s.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	since := filepath.Join(dir, "settings")
	pid, err := pidOf(filepath.Join(dir, pidFile))
	if err != nil {
		return err
	}
	if pid > 0 {
		if running, err := os.ReadFile(since); err == nil && bytes.Equal(running, settings) && runs(pid) {
			return nil
		}
		if err := end(ctx, pid); err != nil {
			return err
		}
	}
	if err := s.start(ctx, root, closure, dir); err != nil {
		return err
	}
	return os.WriteFile(since, settings, 0o644)
}

// pidFile is in the folder of a service that was started in this boot.
const pidFile = "pid"

// start starts the service, whose folder is dir, and returns when it says that it
// is ready.
func (s service) start(ctx context.Context, root, closure, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close() // the service has its own copy
	cmd := exec.Command(self, "demo-service", s.name, root, closure)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, pidFile), fmt.Appendln(nil, cmd.Process.Pid), 0o600); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	// One that is not ready in time is killed, which ends what it says.
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != ready {
		err := errors.Join(ctx.Err(), cmd.Process.Kill(), cmd.Wait())
		return fmt.Errorf("it is not ready: %w; it said:\n%s", err, tail(log.Name()))
	}
	return nil
}

// pidOf reads a pid file. There is none before the first start in a boot: 0.
func pidOf(file string) (int, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s holds no process id", file)
	}
	return pid, nil
}

// runs tells whether a process of ours does.
func runs(pid int) bool { return syscall.Kill(pid, 0) == nil && !zombie(pid) }

// end kills a process and waits until it is gone.
func end(ctx context.Context, pid int) error {
	for syscall.Kill(pid, syscall.SIGKILL) == nil && !zombie(pid) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the process %d does not end: %w", pid, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// zombie tells whether a process has ended and is only not forgotten yet. Where
// that cannot be seen it is said of none.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}
