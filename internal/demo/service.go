package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serviceFile is what a closure says about its service, inside the closure.
const serviceFile = "etc/service.json"

// serviceSpec is the configuration of a machine's service: what it answers.
type serviceSpec struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
}

// Service is the service of a demo's machine: a small web server.
type Service struct {
	Closure string // the folder whose service it is
	Address string
	Lock    string // held by the demo for as long as it lives
}

// Serve answers as the closure says. It ends with ctx, and by itself within a
// quarter of a second once nobody holds the lock, because then the demo is dead.
func (s Service) Serve(ctx context.Context) error {
	raw, err := os.ReadFile(filepath.Join(s.Closure, serviceFile))
	if err != nil {
		return err
	}
	var spec serviceSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return fmt.Errorf("%s of %s: %w", serviceFile, s.Closure, err)
	}
	lc := net.ListenConfig{Control: sharePort}
	l, err := lc.Listen(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for held(s.Lock) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(spec.Status)
			fmt.Fprintln(w, spec.Body)
		}),
	}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serviceLimit is how long a service may take to end, and to begin.
const serviceLimit = 5 * time.Second

// Restart does what an init system does with a service whose unit changed: it
// ends the one whose process id is in the file, starts this one in a session of
// its own, and returns when it listens.
func (s Service) Restart(ctx context.Context, pidFile string) error {
	ctx, cancel := context.WithTimeout(ctx, serviceLimit)
	defer cancel()
	if err := endService(ctx, pidFile); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "demo-service", s.Closure, s.Address, s.Lock)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if c, err := net.Dial("tcp", s.Address); err == nil {
			return c.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the service ended at once: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the service does not listen: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// endService ends the service of a pid file, if there is one.
func endService(ctx context.Context, pidFile string) error {
	raw, err := os.ReadFile(pidFile)
	if err != nil {
		return nil // none was started in this boot
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s holds no process id", pidFile)
	}
	for syscall.Kill(pid, syscall.SIGKILL) == nil && !zombie(pid) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the old service does not end: %w", ctx.Err())
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

// reservePort takes a free TCP port of the loopback interface without listening
// on it: nobody else is given it, and a service that also asks to share it can
// listen. The reservation lasts until the file is closed.
func reservePort() (*os.File, int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, 0, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "reserved port")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("bind", err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("getsockname", err)
	}
	return f, addr.(*unix.SockaddrInet4).Port, nil
}

func sharePort(_, _ string, c syscall.RawConn) error {
	var opt error
	if err := c.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", opt)
}

// takeLock creates the file that tells that the demo lives. The kernel lets go
// of the lock when the demo dies, however it dies.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// held tells whether somebody holds the lock.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
