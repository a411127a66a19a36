package demo

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// atOnce is how many tests run at the same time: they wait more than they compute.
const atOnce = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	os.Exit(runAndRemove(m))
}

// buildDir is where programs puts them.
var buildDir string

func runAndRemove(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "nixfleet-demo-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return m.Run()
}

var buildPrograms = sync.OnceValues(func() (Programs, error) {
	cmd := exec.Command("go", "build", "-o", buildDir, "nixfleet/cmd/nixfleet", "nixfleet/cmd/nixfleet-agent", "nixfleet/cmd/nixfleet-control-plane")
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("%w\n%s", err, out)
	}
	return besides(filepath.Join(buildDir, "nixfleet")), nil
})

// programs are the real ones, built once for all tests that need them.
func programs(t *testing.T) Programs {
	t.Helper()
	p, err := buildPrograms()
	if err != nil {
		t.Fatalf("build the programs: %v", err)
	}
	return p
}

// play runs a demo with the given acts, and checks that it leaves nothing.
func play(t *testing.T, hosts int, list []act) Report {
	t.Helper()
	var folder string
	real := programs(t)
	report, err := Run(t.Context(), Config{
		Hosts: hosts, Programs: &real, acts: list,
		Say: func(p Progress) {
			t.Log(p.Text, p.State)
			if _, in, found := strings.Cut(p.Text, " hosts in "); found {
				folder = in
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, folder, 0)
	return report
}

// wantNothingLeft: within a time, no process of the demo lives and its folder is
// gone.
func wantNothingLeft(t *testing.T, folder string, within time.Duration) {
	t.Helper()
	if folder == "" {
		t.Fatal("the demo did not say where its folder is")
	}
	deadline := time.Now().Add(within)
	for {
		left := processes(folder)
		_, err := os.Lstat(folder)
		if len(left) == 0 && os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s after the end: processes %v, folder %v", within, left, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// The demo holds in all its acts, and is over in a minute. It runs alone, because
// it is measured.
func TestEveryActHolds(t *testing.T) {
	programs(t)
	began := time.Now()
	report := play(t, 4, nil)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	if !report.OK {
		t.Errorf("%+v", report.Acts)
	}
	var names []string
	for _, a := range report.Acts {
		names = append(names, a.Name)
		if !a.OK || a.Seconds <= 0 || a.Detail == "" {
			t.Errorf("%+v", a)
		}
	}
	if want := []string{"converge", "canary-waves", "bad-release-reverts", "lost-network-reverts", "kills", "attacks-refused", "auditor"}; !slices.Equal(names, want) {
		t.Errorf("acts %v, want %v", names, want)
	}
	if len(report.Hosts) != 4 {
		t.Errorf("hosts %+v", report.Hosts)
	}
	for _, h := range report.Hosts {
		if h.State != "Converged" || h.Current == "" || h.Current != h.Target {
			t.Errorf("%+v", h)
		}
	}
}

// breakable are the acts with the play of one replaced.
func breakable(t *testing.T, name string, play func(ctx context.Context, w *world) (string, error)) []act {
	t.Helper()
	list := acts()
	i := slices.IndexFunc(list, func(a act) bool { return a.name == name })
	if i < 0 {
		t.Fatalf("there is no act %s", name)
	}
	list[i].play = play
	return list
}

// with are systems as b builds them, but for the switch program of one host.
func with(b build, host, program string) build {
	return func(s system) []file {
		files := b(s)
		for i := range files {
			if s.host == host && files[i].path == "bin/switch-to-configuration" {
				files[i].data = []byte(program)
			}
		}
		return files
	}
}

// attackedBy are the acts with an attacker who has more than is said.
func attackedBy(more func(w *world, a *attacker)) func(t *testing.T) []act {
	return func(t *testing.T) []act {
		return breakable(t, "attacks-refused", func(ctx context.Context, w *world) (string, error) {
			a, err := w.newAttacker()
			if err != nil {
				return "", err
			}
			more(w, a)
			return w.attack(ctx, a)
		})
	}
}

// rewritten are the acts with a control plane whose database is changed before
// the auditor comes.
func rewritten(statement string) func(t *testing.T) []act {
	return func(t *testing.T) []act {
		return breakable(t, "auditor", func(ctx context.Context, w *world) (string, error) {
			db, err := sql.Open("sqlite", "file:"+w.in("state.db")+"?_pragma=busy_timeout(10000)")
			if err != nil {
				return "", err
			}
			defer db.Close()
			result, err := db.ExecContext(ctx, statement)
			if err != nil {
				return "", err
			}
			if n, err := result.RowsAffected(); err != nil || n != 1 {
				return "", fmt.Errorf("%d records changed: %w", n, err)
			}
			return w.newest, nil
		})
	}
}

// Each act can fail, for a real reason, and then it alone is broken.
func TestABrokenActIsTheOnlyBrokenOne(t *testing.T) {
	t.Parallel()
	good := serving(http.StatusOK, 0)
	ordinary := string(good(system{})[0].data)
	// A switch program that there is no way back to from release 3.
	oneWay := strings.Replace(ordinary, "case $1 in\n", "case $1-$(readlink run/current-system) in\ntest-*-release-3) echo no way back >&2; exit 1 ;; esac\ncase $1 in\n", 1)
	faults := []struct {
		name string // of the fault
		acts func(t *testing.T) []act
		want string // the broken act
	}{
		{
			name: "a host whose switch fails",
			want: "converge",
			acts: func(t *testing.T) []act {
				return breakable(t, "converge", func(ctx context.Context, w *world) (string, error) {
					failing := with(good, "host-2", "#!/bin/sh\necho no >&2\nexit 1\n")
					return w.rollOut(ctx, releaseSpec{allAtOnce, soakSecs, failing}, (*world).startAgents)
				})
			},
		},
		{
			name: "waves that do not soak",
			want: "canary-waves",
			acts: func(t *testing.T) []act {
				return breakable(t, "canary-waves", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{canaryFirst, 0, good}, nil)
				})
			},
		},
		{
			name: "everybody at once",
			want: "canary-waves",
			acts: func(t *testing.T) []act {
				return breakable(t, "canary-waves", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{allAtOnce, soakSecs, good}, nil)
				})
			},
		},
		{
			name: "a bad release that is not bad",
			want: "bad-release-reverts",
			acts: func(t *testing.T) []act {
				return breakable(t, "bad-release-reverts", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{canaryFirst, soakSecs, good}, nil)
				})
			},
		},
		{
			name: "a prior system that cannot be gone back to",
			want: "bad-release-reverts",
			acts: func(t *testing.T) []act {
				return breakable(t, "canary-waves", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{canaryFirst, soakSecs, with(good, "host-1", oneWay)}, nil)
				})
			},
		},
		{
			name: "a network that works",
			want: "lost-network-reverts",
			acts: func(t *testing.T) []act {
				return breakable(t, "lost-network-reverts", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{pairFirst, soakSecs, good}, nil)
				})
			},
		},
		{
			name: "agents that all live",
			want: "lost-network-reverts",
			acts: func(t *testing.T) []act {
				return breakable(t, "lost-network-reverts", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{pairFirst, soakSecs, cutOff(good)}, nil)
				})
			},
		},
		{
			name: "nobody is killed",
			want: "kills",
			acts: func(t *testing.T) []act {
				return breakable(t, "kills", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{canaryFirst, soakSecs, serving(http.StatusOK, switchSecs)}, nil)
				})
			},
		},
		{
			name: "nobody attacks",
			want: "attacks-refused",
			acts: func(t *testing.T) []act {
				return breakable(t, "attacks-refused", func(ctx context.Context, w *world) (string, error) {
					return w.rollOut(ctx, releaseSpec{allAtOnce, soakSecs, good}, nil)
				})
			},
		},
		{
			name: "an attacker with the owner's release key",
			want: "attacks-refused",
			acts: attackedBy(func(w *world, a *attacker) {
				a.publisher.Signer, a.publisher.Slot, a.trust = w.publisher.Signer, w.publisher.Slot, w.keys.Trust()
				a.cache = w.cache
			}),
		},
		{
			name: "an attacker with the owner's cache key",
			want: "attacks-refused",
			acts: attackedBy(func(w *world, a *attacker) { a.cache = w.cache }),
		},
		{
			name: "a control plane that changes a record",
			want: "auditor",
			acts: rewritten(`UPDATE events SET envelope = replace(CAST(envelope AS TEXT), '"bootId"', '"boatId"') WHERE log_id = (SELECT min(log_id) FROM events)`),
		},
		{
			name: "a control plane that withholds records",
			want: "auditor",
			acts: rewritten(`DELETE FROM events WHERE log_id = (SELECT max(log_id) FROM events)`),
		},
		{
			name: "a journal that is lost with the agent",
			want: "kills",
			acts: func(t *testing.T) []act {
				return breakable(t, "kills", func(ctx context.Context, w *world) (string, error) {
					lose := func(w *world, ctx context.Context, id string) error {
						if err := w.killAll(ctx, id); err != nil {
							return err
						}
						if err := os.Remove(w.machines[0].in(stateDir + "/journal.db")); err != nil {
							return err
						}
						return w.agents["host-1"].kill()
					}
					return w.rollOut(ctx, releaseSpec{canaryFirst, soakSecs, serving(http.StatusOK, switchSecs)}, lose)
				})
			},
		},
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			report := play(t, 3, fault.acts(t))
			if report.OK {
				t.Error("it is said to hold")
			}
			for _, a := range report.Acts {
				if a.OK == (a.Name == fault.want) {
					t.Errorf("%s: ok %t: %s", a.Name, a.OK, a.Detail)
				}
			}
		})
	}
}

// demoProcess starts the real program as somebody would, with its temporary
// folders in one whose name has a space.
func demoProcess(t *testing.T, args ...string) (cmd *exec.Cmd, lines *bufio.Scanner, folder string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "with space")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(programs(t).Nixfleet, append([]string{"demo", "--hosts=2"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines = bufio.NewScanner(out)
	_, folder, _ = strings.Cut(waitFor(t, lines, " hosts in "), " hosts in ")
	return cmd, lines, folder
}

// waitFor reads lines up to one that has the text.
func waitFor(t *testing.T, lines *bufio.Scanner, text string) string {
	t.Helper()
	var all bytes.Buffer
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return lines.Text()
		}
		fmt.Fprintln(&all, lines.Text())
	}
	t.Fatalf("%q was never said in\n%s", text, all.String())
	return ""
}

// However the demo ends, in whatever moment, nothing of it is left.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, moment string
		signal       syscall.Signal
	}{
		{"killed at the beginning", "Act 1", syscall.SIGKILL},
		{"killed in the middle of a switch", "killed the agent of host-1", syscall.SIGKILL},
		{"interrupted", "Soaking", syscall.SIGINT},
		{"terminated in the middle of a switch", "killed the agent of host-1", syscall.SIGTERM},
		{"interrupted while an agent hangs", "froze the agent of host-2", syscall.SIGINT},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd, lines, folder := demoProcess(t)
			waitFor(t, lines, c.moment)
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, &drain{lines})
			if err := cmd.Wait(); err == nil {
				t.Error("it says that it went well")
			}
			limit := 5 * time.Second
			if c.signal != syscall.SIGKILL {
				limit = 0 // it cleans up before it ends
			}
			wantNothingLeft(t, folder, limit)
		})
	}
}

// drain reads what is left of a scanner.
type drain struct{ *bufio.Scanner }

func (d *drain) Read([]byte) (int, error) {
	if d.Scan() {
		return 0, nil
	}
	return 0, io.EOF
}

// With --keep everything but the processes stays, and can be looked at.
func TestKeepLeavesTheFolder(t *testing.T) {
	t.Parallel()
	var folder string
	real := programs(t)
	report, err := Run(t.Context(), Config{
		Hosts: 2, Keep: true, Programs: &real, acts: acts()[:1],
		Say: func(p Progress) {
			if _, in, found := strings.Cut(p.Text, "left everything in "); found {
				folder = in
			}
		},
	})
	t.Cleanup(func() { removeAll(folder) })
	if err != nil || !report.OK {
		t.Fatalf("%v %+v", err, report)
	}
	if left := processes(folder); len(left) > 0 {
		t.Errorf("processes %v", left)
	}
	for _, path := range []string{"fleet/trust.json", "fleet/release/fleet.resolved.json.sig", "state.db", "hosts/host-1/run/current-system", "hosts/host-2/var/log/agent"} {
		if _, err := os.Stat(filepath.Join(folder, path)); err != nil {
			t.Error(err)
		}
	}
}

// With --serve the fleet goes on, and answers.
func TestServeGoesOn(t *testing.T) {
	t.Parallel()
	cmd, lines, folder := demoProcess(t, "--serve")
	waitFor(t, lines, "the fleet goes on until Ctrl-C")
	out, err := exec.Command(programs(t).Nixfleet, "status", "--json", "--config", filepath.Join(folder, "fleet/config.toml")).Output()
	var status struct {
		Hosts []struct{ Hostname string }
	}
	if err != nil || json.Unmarshal(out, &status) != nil || len(status.Hosts) != 2 {
		t.Errorf("%v: %s", err, out)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, &drain{lines})
	if err := cmd.Wait(); err != nil {
		t.Errorf("all acts held: %v", err)
	}
	wantNothingLeft(t, folder, 0)
}

// A program that does not stay up ends the demo with what it said.
func TestADaemonThatDoesNotStayUpIsTold(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "nixfleet-control-plane")
	if err := os.WriteFile(bad, []byte("#!/bin/sh\necho the database is on fire\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	withBad := programs(t)
	withBad.ControlPlane = bad
	_, err := Run(t.Context(), Config{Hosts: 2, Programs: &withBad, Say: func(Progress) {}})
	if err == nil || !strings.Contains(err.Error(), "control-plane does not stay up") || !strings.Contains(err.Error(), "the database is on fire") {
		t.Errorf("%v", err)
	}
}

func TestShellQuote(t *testing.T) {
	for _, s := range []string{"plain", "with space", "it's", `"$HOME"`, ""} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q came out as %q: %v", s, out, err)
		}
	}
}
