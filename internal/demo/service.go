package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
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

// Serve is the service of a demo's machine: a small web server that answers as
// the closure says. It ends with ctx, and by itself within a quarter of a second
// once nobody holds the lock file any more, because then the demo is dead.
func Serve(ctx context.Context, closure, address, lock string) error {
	raw, err := os.ReadFile(filepath.Join(closure, serviceFile))
	if err != nil {
		return err
	}
	var spec serviceSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return fmt.Errorf("%s of %s: %w", serviceFile, closure, err)
	}
	lc := net.ListenConfig{Control: reusePort}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
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

func reusePort(_, _ string, c syscall.RawConn) error {
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
