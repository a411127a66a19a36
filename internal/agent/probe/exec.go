package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// maxOutput is how much of a command's output is kept: its end, in bytes.
const maxOutput = 4 << 10

// pipeGrace is how long after the end of a command its output may stay open,
// held by a process that it left behind.
const pipeGrace = time.Second

// defaultUser runs commands that name no user, when the agent is root.
const defaultUser = "nobody"

// Command is the program of an exec probe. It is executed directly, never
// through a shell.
type Command struct {
	Argv []string
	User string // "" is nobody when the agent is root, else the agent's own user
}

// Exit is how a command ended. Output is the end of what it wrote to its two
// outputs.
type Exit struct {
	Code   int
	Output []byte
}

func (s settings) execCheck(m Machine) (Func, time.Duration, error) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return nil, 0, errors.New("command: a program and its arguments are needed, as a list")
	}
	command := Command{Argv: s.Command, User: s.User}
	return func(ctx context.Context) Verdict {
		exit, err := m.Exec(ctx, command)
		switch {
		case ctx.Err() != nil:
			return fail(withEnd(s.Command[0]+" did not end in time and was killed", exit.Output))
		case err != nil:
			return fail(err.Error())
		case exit.Code != s.ExpectExitCode:
			return fail(withEnd(fmt.Sprintf("%s: exit status %d, want %d", s.Command[0], exit.Code, s.ExpectExitCode), exit.Output))
		}
		return pass()
	}, s.timeout(), nil
}

// Exec runs a command on this machine, in a process group of its own that is
// killed as a whole when the context ends, and when the command has ended. What
// left the group by its own will is not followed.
func Exec(ctx context.Context, c Command) (Exit, error) {
	credential, err := credentialFor(c.User)
	if err != nil {
		return Exit{}, err
	}
	var output tail
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"} // nothing of the agent's own environment
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential}
	cmd.WaitDelay = pipeGrace
	killGroup := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = killGroup
	if err := cmd.Start(); err != nil {
		return Exit{}, err
	}
	err = cmd.Wait()
	// The group's number is not given to anybody else while a member lives; an
	// empty group answers with an error that says nothing.
	_ = killGroup()
	exit := Exit{Code: cmd.ProcessState.ExitCode(), Output: bytes.TrimSpace(output.kept)}
	var status *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return exit, nil
	case errors.As(err, &status) && status.Exited():
		return exit, nil
	}
	return exit, fmt.Errorf("%s: %w", c.Argv[0], err)
}

// credentialFor is whom to run as; nil is the agent's own user.
func credentialFor(name string) (*syscall.Credential, error) {
	root := os.Geteuid() == 0
	if name == "" {
		if !root {
			return nil, nil
		}
		name = defaultUser
	}
	account, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return nil, err // it says "user" itself
	}
	if err != nil {
		return nil, fmt.Errorf("user: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	if !root {
		if int(uid) == os.Geteuid() {
			return nil, nil
		}
		return nil, fmt.Errorf("user %s: the agent is not root and cannot become another user", name)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// tail keeps the last maxOutput bytes that are written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-maxOutput):]...)
	if excess := len(t.kept) - maxOutput; excess > 0 {
		t.kept = append(t.kept[:0], t.kept[excess:]...)
	}
	return len(p), nil
}
