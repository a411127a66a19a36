package dirhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nixfleet/internal/agent/host"
)

// Runner runs the program of a unit, whose folder is its name. Only one Runner
// knows a machine's units, but a Processes finds those of another Processes.
type Runner interface {
	// Start begins the program and returns at once. When the program ends by
	// itself the Runner writes its exit code to the file "exit" in the unit's
	// folder, all or nothing; its output goes to the file "output" there.
	Start(u Unit) error
	// Alive tells whether the program, or something that it left, runs.
	Alive(dir string) bool
	// Kill ends it, at once or with time to say good-bye, and returns when it is
	// gone. Nothing to kill is no error.
	Kill(dir string, atOnce bool) error
}

// Unit is what a Runner starts.
type Unit struct {
	Dir     string // the unit's folder
	Program string // absolute
	Args    []string
	Env     []string
}

// started is what a unit's folder remembers of its start, in unit.json.
type started struct {
	ID      string       `json:"id"`
	Command host.Command `json:"command"`
	Until   time.Time    `json:"until,omitzero"` // when its time limit ends it
}

// exitNoExec is what systemd exits with for a program that cannot be executed.
const exitNoExec = 203

func (m *Machine) unitDir(s host.Slot) string { return m.path("run/units/" + string(s)) }

// Start takes the slot by renaming a folder into its place, which only one
// caller can, and then starts the program.
func (m *Machine) Start(ctx context.Context, s host.Slot, c host.Command) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	st := started{ID: newID(), Command: c}
	if c.Timeout > 0 {
		st.Until = time.Now().Add(c.Timeout)
	}
	dir := m.unitDir(s)
	if err := takeSlot(dir, st); err != nil {
		return "", fmt.Errorf("start %s: %w", s, err)
	}
	program := filepath.Join(m.Path(c.Closure), "bin", "switch-to-configuration")
	if err := executable(program); err != nil {
		text := fmt.Sprintf("cannot execute %s: %v\n", program, err)
		return st.ID, errors.Join(os.WriteFile(dir+"/output", []byte(text), 0o644), writeExit(dir, "exit", exitNoExec))
	}
	u := Unit{Dir: dir, Program: program, Args: []string{string(c.Action)}, Env: m.env(st)}
	if err := m.runner.Start(u); err != nil {
		return "", errors.Join(fmt.Errorf("start %s: %w", s, err), os.RemoveAll(dir))
	}
	return st.ID, nil
}

func takeSlot(dir string, st started) error {
	text, err := json.Marshal(st)
	if err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(fresh+"/unit.json", text, 0o644), os.WriteFile(fresh+"/output", nil, 0o644))
	if err == nil {
		err = os.Rename(fresh, dir) // refused when the slot's folder is there, because it is not empty
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		err = host.ErrSlotTaken
	}
	return errors.Join(err, os.RemoveAll(fresh))
}

// env is clean: what a unit finds in its environment does not depend on who
// started it, but for PATH.
func (m *Machine) env(st started) []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/bin:/bin"
	}
	env := []string{
		"PATH=" + path,
		"NIXFLEET_ROOT=" + m.dir,
		"NIXFLEET_ROLLOUT=" + st.Command.Rollout,
		"NIXFLEET_RUN=" + st.ID,
	}
	if st.Command.NoCheck {
		env = append(env, "NIXOS_NO_CHECK=1")
	}
	return env
}

// executable tells why the kernel would not execute a file. A shell would run an
// empty one, and call that a success.
func executable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return errors.New("not an executable file")
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return errors.New("not a program")
	}
	for _, magic := range []string{"#!", "\x7fELF", "\xcf\xfa\xed\xfe"} {
		if strings.HasPrefix(string(head), magic) {
			return nil
		}
	}
	return errors.New("not a program")
}

// Status reads the unit's folder. A unit that neither runs nor left its exit code
// is absent: nobody knows how it ended.
func (m *Machine) Status(ctx context.Context, s host.Slot) (host.Run, error) {
	if err := ctx.Err(); err != nil {
		return host.Run{}, err
	}
	dir := m.unitDir(s)
	text, err := os.ReadFile(dir + "/unit.json")
	if errors.Is(err, fs.ErrNotExist) {
		return host.Run{}, nil
	}
	if err != nil {
		return host.Run{}, err
	}
	var st started
	if err := json.Unmarshal(text, &st); err != nil {
		return host.Run{}, fmt.Errorf("status of %s: %w", s, err)
	}
	run := host.Run{Phase: host.RunRunning, ID: st.ID, Rollout: st.Command.Rollout, Closure: st.Command.Closure, Action: st.Command.Action}
	// Asked before the exit code is looked for, because it ends by writing it.
	alive := m.runner.Alive(dir)
	if alive && !st.Until.IsZero() && time.Now().After(st.Until) {
		if err := m.timeOut(dir); err != nil {
			return host.Run{}, fmt.Errorf("status of %s: %w", s, err)
		}
	}
	run.Result, run.ExitCode, err = readEnd(dir)
	switch {
	case err == nil:
		run.Phase = host.RunEnded
		run.Output = tailOf(dir + "/output")
		return run, nil
	case !errors.Is(err, fs.ErrNotExist):
		return host.Run{}, err
	case alive:
		return run, nil
	}
	return host.Run{}, nil
}

// timeOut ends a unit that had its time.
func (m *Machine) timeOut(dir string) error {
	if _, _, err := readEnd(dir); err == nil {
		return nil // it has ended; what it left may live
	}
	if err := m.runner.Kill(dir, false); err != nil {
		return err
	}
	return writeExit(dir, "timeout", 128+int(syscall.SIGTERM))
}

// writeExit records the end of a unit: in the file "exit" that of a program that
// ended by itself, in the file "timeout" that of one that did not.
func writeExit(dir, file string, code int) error {
	tmp := filepath.Join(dir, ".new-"+file)
	if err := os.WriteFile(tmp, fmt.Appendln(nil, code), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, file))
}

func readEnd(dir string) (result string, code int, err error) {
	result = host.ResultTimeout
	text, err := os.ReadFile(dir + "/timeout")
	if errors.Is(err, fs.ErrNotExist) {
		result = host.ResultExitCode
		text, err = os.ReadFile(dir + "/exit")
	}
	if err != nil {
		return "", 0, err
	}
	if _, err := fmt.Sscan(string(text), &code); err != nil {
		return "", 0, fmt.Errorf("exit code of %s: %w", filepath.Base(dir), err)
	}
	switch {
	case result == host.ResultTimeout:
	case code == 0:
		result = host.ResultSuccess
	case code > 128 && code <= 128+64: // how a shell says that a signal killed it
		result = host.ResultSignal
	}
	return result, code, nil
}

// tailOf reads no more of an output than is kept of it.
func tailOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() // only read
	if info, err := f.Stat(); err == nil && info.Size() > 2*host.OutputMax {
		if _, err := f.Seek(-2*host.OutputMax, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, 4*host.OutputMax))
	if err != nil {
		return ""
	}
	return host.Tail(text)
}

// Clear ends the unit and removes its folder, the name first.
func (m *Machine) Clear(ctx context.Context, s host.Slot) error {
	dir := m.unitDir(s)
	if err := m.runner.Kill(dir, false); err != nil {
		return fmt.Errorf("stop %s: %w", s, err)
	}
	gone := filepath.Join(filepath.Dir(dir), ".old-"+newID())
	if err := os.Rename(dir, gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(gone)
}
