package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func execText(t *testing.T, fields string, argv ...string) string {
	t.Helper()
	command, err := json.Marshal(argv)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"kind":"exec","command":%s%s}`, command, fields)
}

// TestExec: every reason, to the letter.
func TestExec(t *testing.T) {
	long := strings.Repeat("x", 600)
	tests := []struct {
		name, fields string
		argv         []string
		want         string
	}{
		{"ok", "", []string{"true"}, ""},
		{"fails", "", []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, "sh: exit status 3, want 0: out\nerr"},
		{"other status is wanted", `,"expectExitCode":3`, []string{"sh", "-c", "exit 3"}, ""},
		{"0 where another is wanted", `,"expectExitCode":3`, []string{"true"}, "true: exit status 0, want 3"},
		{"no shell", "", []string{"test", "$HOME", "=", "$HOME"}, ""},
		{"spaces stay in one argument", "", []string{"test", "a  b", "=", "a  b"}, ""},
		{"no such program", "", []string{"/no/such/program"}, "fork/exec /no/such/program: no such file or directory"},
		{"no such program in the path", "", []string{"no-such-program"}, `exec: "no-such-program": executable file not found in $PATH`},
		{"not executable", "", []string{"/etc/passwd"}, "fork/exec /etc/passwd: permission denied"},
		{"not a program", "", []string{"/etc"}, "fork/exec /etc: permission denied"},
		{"killed by a signal", "", []string{"sh", "-c", "kill -9 $$"}, "sh: signal: killed"},
		{"the end of long output", "", []string{"sh", "-c", "echo " + long + "; echo the end; exit 1"},
			"sh: exit status 1, want 0: …" + strings.Repeat("x", 512-len("sh: exit status 1, want 0: …\nthe end")) + "\nthe end"},
		{"output that is no text", "", []string{"sh", "-c", `printf 'a\377b'; exit 1`}, "sh: exit status 1, want 0: a\ufffdb"},
		{"no such user", `,"user":"nosuchuser"`, []string{"true"}, "user: unknown user nosuchuser"},
		{"nothing of our environment", "", []string{"sh", "-c", `test -z "$NIXFLEET_AGENT_SECRET"`}, ""},
		{"nothing to read", "", []string{"sh", "-c", "! read line"}, ""},
	}
	t.Setenv("NIXFLEET_AGENT_SECRET", "s")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			expectExactly(t, checkOf(t, execText(t, test.fields, test.argv...), Machine{})(t.Context()), test.want)
		})
	}
}

// TestExecUser: nobody when the agent is root, itself when it is not; a user that
// is named is the one.
func TestExecUser(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	unnamed := me.Username
	if os.Geteuid() == 0 {
		unnamed = "nobody"
	}
	expectExactly(t, checkOf(t, execText(t, "", "sh", "-c", "id -un; exit 1"), Machine{})(t.Context()), "sh: exit status 1, want 0: "+unnamed)
	expect(t, checkOf(t, execText(t, "", "sh", "-c", `test "$(id -un)" = `+unnamed+` && test "$(id -G | wc -w)" -ge 1`), Machine{})(t.Context()), "")
	expect(t, checkOf(t, execText(t, `,"user":"`+me.Username+`"`, "sh", "-c", `test "$(id -un)" = `+me.Username), Machine{})(t.Context()), "")
	if os.Geteuid() == 0 {
		// None of root's groups is left.
		expect(t, checkOf(t, execText(t, "", "sh", "-c", `test "$(id -G)" = "$(id -g)"`), Machine{})(t.Context()), "")
	} else {
		expectExactly(t, checkOf(t, execText(t, `,"user":"root"`, "true"), Machine{})(t.Context()), "user root: the agent is not root and cannot become another user")
	}
}

func TestExecTimeout(t *testing.T) {
	began := time.Now()
	check := checkOf(t, execText(t, `,"timeoutSecs":1`, "sh", "-c", "echo working; exec sleep 300"), Machine{})
	expectExactly(t, check(t.Context()), "sh did not end in time and was killed: working")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
	expectExactly(t, checkOf(t, execText(t, `,"timeoutSecs":1`, "sleep", "300"), Machine{})(t.Context()), "sleep did not end in time and was killed")
}

// TestTimeoutKillsTheWholeGroup: the command, what it waits for, and what it left
// in the background, also when that ignores polite signals.
func TestTimeoutKillsTheWholeGroup(t *testing.T) {
	pids := pidFile(t)
	script := `trap "" TERM HUP INT; sleep 300 & echo $! >> "$0"; sh -c 'trap "" TERM; echo $$ >> "$0"; sleep 300' "$0" & echo $$ >> "$0"; wait`
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := Exec(ctx, Command{Argv: []string{"sh", "-c", script, pids}})
		ended <- err
	}()
	await(t, "three processes", func() bool { return len(pidsIn(t, pids)) == 3 })
	cancel()
	if err := <-ended; err == nil {
		t.Error("a killed command ended well")
	}
	for _, pid := range pidsIn(t, pids) {
		awaitEnd(t, pid)
	}
}

// TestBackgroundProcessesAreKilled: a command that ends well and leaves a process
// that holds its output is a pass, and the process ends.
func TestBackgroundProcessesAreKilled(t *testing.T) {
	pids := pidFile(t)
	expect(t, checkOf(t, execText(t, "", "sh", "-c", `sleep 300 & echo $! >> "$0"`, pids), Machine{})(t.Context()), "")
	left := pidsIn(t, pids)
	if len(left) != 1 {
		t.Fatalf("%d processes were started", len(left))
	}
	awaitEnd(t, left[0])
}

// pidFile is a file that a command run as nobody may write to.
func pidFile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "pids")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, nil, 0o600), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	return file
}

func pidsIn(t *testing.T, file string) []int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, field := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// awaitEnd waits until a process is dead, or only waits to be reaped by its new
// parent.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	await(t, fmt.Sprintf("the end of process %d", pid), func() bool { return !alive(pid) })
}

// await polls what other processes do: they tell us nothing.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH)
	}
	return !strings.Contains(string(stat), ") Z ")
}

// TestOutputIsCapped: endless output neither fills the memory nor blocks the
// command, and its end is what is shown.
func TestOutputIsCapped(t *testing.T) {
	exit, err := Exec(t.Context(), Command{Argv: []string{"sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo the end; exit 1"}})
	if err != nil || exit.Code != 1 || len(exit.Output) > maxOutput || !strings.HasSuffix(string(exit.Output), "xthe end") {
		t.Errorf("%d, %d bytes, %v", exit.Code, len(exit.Output), err)
	}
	var kept tail
	for range 3 {
		kept.Write([]byte(strings.Repeat("a", maxOutput-1) + "b"))
		kept.Write([]byte("c"))
	}
	if len(kept.kept) != maxOutput || !strings.HasSuffix(string(kept.kept), "abc") {
		t.Errorf("%d bytes", len(kept.kept))
	}
}

// TestExecOfAnotherMachine: simulated programs have the same contract.
func TestExecOfAnotherMachine(t *testing.T) {
	var got Command
	m := Machine{Exec: func(_ context.Context, c Command) (Exit, error) {
		got = c
		return Exit{Code: 2, Output: []byte("simulated")}, nil
	}}
	expectExactly(t, checkOf(t, execText(t, `,"user":"web"`, "check", "now"), m)(t.Context()), "check: exit status 2, want 0: simulated")
	if got.User != "web" || strings.Join(got.Argv, " ") != "check now" {
		t.Errorf("%+v", got)
	}
}
