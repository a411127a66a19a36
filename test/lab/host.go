package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// rebooted is how systemd-nspawn says that its machine asked for a reboot.
const rebooted = 133

// Host is one machine of the lab.
type Host struct {
	Name string

	id     string   // among all hosts of all labs
	dir    string   // disk image, mounts, console log
	groups []string // cgroups

	mu     sync.Mutex
	nspawn *exec.Cmd
	boots  int
	down   chan struct{} // closed when the machine is off
	off    bool          // it is to stay off
	stuck  error         // why its disk could not be taken away
}

// newHost makes a machine with an empty disk, and prepares its network.
func newHost(dir, name string, number int) (*Host, error) {
	h := &Host{Name: name, id: fmt.Sprintf("lab-%d", number), dir: filepath.Join(dir, name)}
	for _, d := range []string{"disk", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	image := filepath.Join(h.dir, "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, 4<<30); err != nil { // sparse
		return nil, err
	}
	if err := run("mkfs.ext4", "-q", "-F", image); err != nil {
		return nil, err
	}
	var err error
	if h.groups, err = cgroup(h.id); err != nil {
		return nil, err
	}
	return h, plug(h.id, number)
}

// mount brings the disk up: the image, and over it the root file system.
func (h *Host) mount() error {
	disk := filepath.Join(h.dir, "disk")
	if err := run("mount", "-o", "loop", filepath.Join(h.dir, "disk.img"), disk); err != nil {
		return err
	}
	for _, d := range []string{"up", "work"} {
		if err := os.MkdirAll(filepath.Join(disk, d), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/up,workdir=%s/work", base(), disk, disk)
	if err := unix.Mount("overlay", h.Root(), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount the root of %s: %w", h.Name, err)
	}
	return nil
}

// unmount takes the disk away, and waits until the kernel has let go of it: what is
// mounted again must be read from it.
func (h *Host) unmount() error {
	if err := errors.Join(
		unix.Unmount(h.Root(), 0),
		run("umount", filepath.Join(h.dir, "disk"))); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), unmountLimit)
	defer cancel()
	return Until(ctx, "the disk of "+h.Name+" to be free", func() (bool, error) {
		used, err := exec.Command("losetup", "--associated", filepath.Join(h.dir, "disk.img")).Output()
		return len(used) == 0, err
	})
}

const unmountLimit = 30 * time.Second

// Root is the host's root file system while it is powered on, or between Mount
// and the first boot.
func (h *Host) Root() string { return filepath.Join(h.dir, "root") }

// PowerOn boots the machine and waits until systemd has started everything.
// Prepare, when not nil, may change the disk before the first process runs.
func (h *Host) PowerOn(ctx context.Context, prepare func(root string) error) error {
	if err := h.mount(); err != nil {
		return err
	}
	if prepare != nil {
		if err := prepare(h.Root()); err != nil {
			return errors.Join(err, h.unmount())
		}
	}
	h.down, h.off = make(chan struct{}), false
	started := make(chan error, 1)
	go h.supervise(started)
	if err := <-started; err != nil {
		return err
	}
	return h.WaitUp(ctx)
}

// supervise is the machine itself: its boot loader, and its way of coming back
// after a reboot.
func (h *Host) supervise(started chan<- error) {
	defer close(h.down)
	for {
		cmd := h.boot()
		err := cmd.Start()
		h.mu.Lock()
		h.nspawn = cmd
		h.boots++
		h.mu.Unlock()
		if started != nil {
			started <- err
			started = nil
		}
		if err == nil {
			err = cmd.Wait()
		}
		var exit *exec.ExitError
		h.mu.Lock()
		off := h.off
		h.mu.Unlock()
		if errors.As(err, &exit) && exit.ExitCode() == rebooted && !off {
			continue
		}
		h.mu.Lock()
		h.nspawn = nil
		h.mu.Unlock()
		stuck := h.unmount()
		h.mu.Lock()
		h.stuck = stuck
		h.mu.Unlock()
		return
	}
}

// boot is one run of the machine, from what its boot loader names.
func (h *Host) boot() *exec.Cmd {
	init := "/lib/systemd/systemd"
	if line, err := os.ReadFile(filepath.Join(h.Root(), "boot/default-system")); err == nil {
		if system := strings.TrimSpace(string(line)); system != "" {
			init = system + "/init"
		}
	}
	// The shell enters the host's groups before it becomes nspawn.
	script := `for g in $GROUPS_OF_HOST; do echo $$ > "$g/cgroup.procs"; done; exec "$@"`
	cmd := exec.Command("sh", "-c", script, "sh",
		"systemd-nspawn", "--quiet", "--directory", h.Root(), "--machine", h.id,
		"--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3",
		"--network-namespace-path=/run/netns/"+h.id, "--capability=CAP_NET_ADMIN", "--", init)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"GROUPS_OF_HOST=" + strings.Join(h.groups, " "),
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", // as NixOS has it
	}
	if console, err := os.OpenFile(filepath.Join(h.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		cmd.Stdout, cmd.Stderr = console, console // inherited; closed with the process
	}
	return cmd
}

// Boots counts how often the machine was started.
func (h *Host) Boots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boots
}

// initPID is the machine's first process, as the lab sees it; 0 while there is
// none.
func (h *Host) initPID() int {
	h.mu.Lock()
	cmd := h.nspawn
	h.mu.Unlock()
	if cmd == nil || cmd.Process == nil {
		return 0
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a constant
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// pid (command) state ppid …; the command may hold anything but the last ')'.
		after := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(after) > 1 && after[1] == strconv.Itoa(cmd.Process.Pid) {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			return pid
		}
	}
	return 0
}

// Command prepares a command inside the host, with a clean environment. It is the
// child of a shell there: one of nsenter's own stops its parent for ever when the
// host's shutdown stops all its processes, and the shutdown would wait for it.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := append([]string{"-t", strconv.Itoa(h.initPID()), "-a", "--no-fork", "--", "env", "-i",
		"HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"sh", "-c", `"$@"; exit $?`, "sh"}, argv...)
	return exec.CommandContext(ctx, "nsenter", args...)
}

// Exec runs a command inside the host and gives its trimmed standard output.
func (h *Host) Exec(ctx context.Context, argv ...string) (string, error) {
	if h.initPID() == 0 {
		return "", fmt.Errorf("%s is off", h.Name)
	}
	var out, stderr bytes.Buffer
	cmd := h.Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return strings.TrimSpace(out.String()), fmt.Errorf("%s: %s: %w: %s", h.Name, strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Write puts a file into the running host.
func (h *Host) Write(ctx context.Context, path, content string, mode os.FileMode) error {
	cmd := h.Command(ctx, "sh", "-c", `mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"`, "sh", path, fmt.Sprintf("%o", mode))
	cmd.Stdin = strings.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: write %s: %w: %s", h.Name, path, err, out)
	}
	return nil
}

// WaitUp waits until systemd says that starting is over.
func (h *Host) WaitUp(ctx context.Context) error {
	return Until(ctx, h.Name+" to be up", func() (bool, error) {
		if pid := h.initPID(); pid == 0 {
			return false, nil
		}
		// Not an error of ours: it exits with 1 for "degraded" and before there is a manager.
		state, _ := h.Exec(ctx, "systemctl", "is-system-running")
		return state == "running" || state == "degraded", nil
	})
}

// Reboot asks the host to boot again and waits for it.
func (h *Host) Reboot(ctx context.Context) error {
	before := h.Boots()
	// systemctl may be cut off by the very reboot that it asks for.
	_, _ = h.Exec(ctx, "systemctl", "reboot")
	if err := Until(ctx, h.Name+" to reboot", func() (bool, error) { return h.Boots() > before, nil }); err != nil {
		return err
	}
	return h.WaitUp(ctx)
}

// PowerOff ends the machine: its first process is killed, as by pulling the plug
// of a machine whose disk keeps what was written.
func (h *Host) PowerOff() error {
	if h.down == nil {
		return nil
	}
	h.mu.Lock()
	h.off = true
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), powerOffLimit)
	defer cancel()
	// Again and again: it may be on its way from one boot to the next.
	err := Until(ctx, h.Name+" to be off", func() (bool, error) {
		if pid := h.initPID(); pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		select {
		case <-h.down:
			return true, nil
		default:
			return false, nil
		}
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(err, h.stuck)
}

const powerOffLimit = 30 * time.Second

// Log copies the host's console to w.
func (h *Host) Log(w io.Writer) error {
	f, err := os.Open(filepath.Join(h.dir, "console.log"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// Until asks until the answer is yes, the context ends, or asking fails: after 50 ms,
// and less and less often, down to five times a second, because asking costs what
// the hosts need.
func Until(ctx context.Context, what string, ask func() (bool, error)) error {
	for pause := 50 * time.Millisecond; ; pause = min(pause*5/4, 200*time.Millisecond) {
		if yes, err := ask(); err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, ctx.Err())
		case <-time.After(pause):
		}
	}
}
