package demo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The reaper is a process beside the demo that outlives it. When the demo ends,
// whether it returned, was interrupted or was killed, the pipe between them
// closes; the reaper then ends every process that carries the demo's mark and
// removes the folder. There is no other way of cleaning up, so the way that is
// needed after a SIGKILL is taken at every end.

// reaper is the demo's end of the pipe.
type reaper struct {
	pipe io.WriteCloser
	cmd  *exec.Cmd
}

func startReaper(program, folder string) (*reaper, error) {
	cmd := exec.Command(program, "demo-reaper", folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	return &reaper{pipe: pipe, cmd: cmd}, nil
}

// finish ends everything that still runs, removes the folder unless keep, and
// returns when that is done.
func (r *reaper) finish(keep bool) error {
	if keep {
		io.WriteString(r.pipe, keepFolder) // should the reaper be gone, so is the folder
	}
	r.pipe.Close()
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("end the demo's processes: %w", err)
	}
	return nil
}

const keepFolder = "keep"

// Times of the reaper. A demo that was killed leaves nothing behind for longer
// than their sum.
const (
	termGrace  = 1500 * time.Millisecond // from asking a process to end to killing it
	killLimit  = 2 * time.Second         // for killed processes to be gone
	reapPoll   = 20 * time.Millisecond
	removeWait = 200 * time.Millisecond // a last file may be written while the folder goes
)

// Reap is the reaper's life: it waits until in ends, then cleans up.
func Reap(in io.Reader, folder string) error {
	said, _ := io.ReadAll(in) // an error is an end, too
	for _, pid := range processes(folder) {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	left := await(folder, termGrace, 0)
	if len(left) > 0 {
		left = await(folder, killLimit, syscall.SIGKILL)
	}
	if string(said) != keepFolder {
		if err := removeForGood(folder); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("processes %v do not end", left)
	}
	return nil
}

// await waits until none of the folder's processes is left, sending each of them
// the signal at every look. It looks twice: what was being started during the
// first look is there at the second.
func await(folder string, limit time.Duration, signal syscall.Signal) (left []int) {
	quiet := 0
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(reapPoll) {
		left = processes(folder)
		for _, pid := range left {
			if signal != 0 {
				syscall.Kill(pid, signal)
			}
		}
		if len(left) > 0 {
			quiet = 0
		} else if quiet++; quiet == 2 {
			return nil
		}
	}
	return left
}

// removeForGood removes the folder, again when something that was just dying
// wrote to it.
func removeForGood(folder string) error {
	for range 3 {
		if err := removeAll(folder); err != nil {
			return err
		}
		time.Sleep(removeWait)
		if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s comes back after it was removed", folder)
}

// removeAll is os.RemoveAll for a folder in which a store made its folders
// unwritable.
func removeAll(folder string) error {
	if os.RemoveAll(folder) == nil {
		return nil
	}
	filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(folder)
}

// A process belongs to a demo when one of these variables in its environment is
// a path in the demo's folder. Daemons are started with the first; a machine's
// own processes, of which nobody else knows (its service, runs of its switch
// program), have the second. Children inherit both.
var marks = []string{daemonMark, "NIXFLEET_ROOT"}

const daemonMark = "NIXFLEET_DEMO"

// marked tells whether an environment, as zero-terminated strings, is that of a
// process of the demo in folder.
func marked(environ, folder string) bool {
	for entry := range strings.SplitSeq(environ, "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		if slices.Contains(marks, name) && strings.HasPrefix(value, folder+string(filepath.Separator)) {
			return true
		}
	}
	return false
}
