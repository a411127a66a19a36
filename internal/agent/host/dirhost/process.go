package dirhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Processes runs units as processes of a session of their own, which outlive
// this program and whose results the next one finds. All that a unit started
// shares a flock of its file "lock": as long as that is held, it lives. Unlike a
// process id, that cannot be mistaken for another's.
type Processes struct{}

// wrapper is the little that a unit needs around its program: a process that
// remembers how it ended. It runs in the background of a shell that ends at
// once, so that nobody has to wait for it. $0 is the unit's folder.
const wrapper = `
cd / || exit
(
	echo $$ >"$0/pid"
	"$@" >"$0/output" 2>&1
	echo $? >"$0/.new-exit" && mv "$0/.new-exit" "$0/exit"
) </dev/null >/dev/null 2>&1 &
`

// Start starts the program through the wrapper.
func (Processes) Start(u Unit) error {
	lock, err := os.OpenFile(u.Dir+"/lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close() // the unit has its own copy
	// Nobody but Alive can hold it, and that for a moment only.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock the unit: %w", err)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", wrapper, u.Dir, u.Program}, u.Args...)...)
	cmd.Env = u.Env
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start the unit's shell: %w", err)
	}
	return nil
}

// Alive tries the lock of the unit, as a reader: several may.
func (Processes) Alive(dir string) bool {
	lock, err := os.Open(dir + "/lock")
	if err != nil {
		return false
	}
	defer lock.Close() // and with it the lock, when it was free
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// Kill signals the process group of the unit while its lock is held.
func (p Processes) Kill(dir string, atOnce bool) error {
	const (
		patience = 5 * time.Second  // before SIGKILL
		limit    = 30 * time.Second // of which nothing comes back
		interval = 10 * time.Millisecond
	)
	signal := syscall.SIGTERM
	for waited := time.Duration(0); p.Alive(dir); waited += interval {
		if waited > limit {
			return errors.New("something of it cannot be killed")
		}
		if atOnce || waited > patience {
			signal = syscall.SIGKILL
		}
		pid, err := groupOf(dir)
		if err != nil {
			return err
		}
		if pid > 0 && (waited == 0 || signal == syscall.SIGKILL) {
			if err := syscall.Kill(-pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		time.Sleep(interval)
	}
	return nil
}

// groupOf is the unit's process group, 0 while it has not been written.
func groupOf(dir string) (int, error) {
	text, err := os.ReadFile(dir + "/pid")
	if errors.Is(err, fs.ErrNotExist) || len(text) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%q is no process", text)
	}
	return pid, nil
}
