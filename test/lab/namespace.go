package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inner marks the copy of the test binary that runs inside the namespaces; its
// value is the process id of the one outside.
const inner = "NIXFLEET_LAB_INNER"

// Main runs the tests of a package inside namespaces of their own. Where the lab
// cannot run it says why; with CI=true that is a failure.
func Main(m *testing.M) int {
	if os.Getenv(inner) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			return 1
		}
		return m.Run()
	}
	if err := able(); err != nil {
		fmt.Println("SKIP: the lab of real hosts cannot run here:", err)
		if os.Getenv("CI") == "true" {
			return 1
		}
		return 0
	}
	defer sweep()
	code, err := unshare()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return code
}

func able() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root")
	}
	for _, tool := range []string{"systemd-nspawn", "nix-store", "nix-build", "nsenter", "ip", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing; make deps installs it", tool)
		}
	}
	if _, err := os.Stat(filepath.Join(base(), ".ready")); err != nil {
		return errors.New("the base system is missing; scripts/lab-base makes it")
	}
	return nil
}

// cache is where the lab keeps what is expensive to make.
func cache() string {
	if dir := os.Getenv("NIXFLEET_LAB_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/nixfleet-lab"
}

func base() string { return filepath.Join(cache(), "base-bookworm") }

// unshare runs this binary again in new namespaces, as the first process of
// them: the kernel ends every other when it ends.
func unshare() (int, error) {
	// The parent-death signal belongs to the thread that starts the child.
	runtime.LockOSThread()
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inner+"="+strconv.Itoa(os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("enter namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case <-interrupts:
			_ = cmd.Process.Kill() // the first process of a namespace ignores softer signals
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}

// furnish prepares the new namespaces: mounts that stay inside, a /proc of these
// processes, a loopback that is up, a place for network namespaces, a Nix store
// that is kept between runs and is not the machine's own, and the bridge that the
// hosts hang on.
func furnish() error {
	store := filepath.Join(cache(), "nix")
	for _, dir := range []string{"/nix", "/run/netns", store + "/store", store + "/var/nix"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run/netns", "tmpfs", 0},
		{store, "/nix", "", unix.MS_BIND},
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := run("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	scratch = scratchOf(os.Getenv(inner))
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	// systemd-nspawn keeps copies of all mounts, as slaves of those that are shared:
	// what is unmounted here leaves every host.
	if err := unix.Mount(scratch, scratch, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", scratch, "", unix.MS_SHARED, ""); err != nil {
		return err
	}
	return network()
}

// scratch is a folder for what all tests of this run make.
var scratch string

// scratchOf names it after the process id outside.
func scratchOf(pid string) string { return filepath.Join(os.TempDir(), scratchPrefix+pid) }

const scratchPrefix = "nixfleet-lab-"

// sweep removes what this run left, and runs that were killed.
func sweep() {
	sweepCgroups()
	left, _ := filepath.Glob(scratchOf("*")) // the pattern is a constant
	for _, dir := range left {
		if ours(strings.TrimPrefix(filepath.Base(dir), scratchPrefix)) {
			_ = os.RemoveAll(dir) // the next run tries again
		}
	}
}

// ours tells whether what carries a process id is for this process to remove:
// its own, or that of a lab that is gone.
func ours(pid string) bool {
	owner, err := strconv.Atoi(pid)
	return err == nil && (owner == os.Getpid() || syscall.Kill(owner, 0) != nil)
}

// run runs a command to its end; its error carries what it printed.
func run(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
