package crash

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/agent/host"
)

var update = flag.Bool("update", false, "write docs/crash-table.md")

// atOnce is how many fleets run at the same time: they wait far more than they
// compute.
const atOnce = "16"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	folder, err := os.MkdirTemp("", "nixfleet-crash-")
	if err != nil {
		panic(err)
	}
	programs.dir = folder
	code := m.Run()
	if err := os.RemoveAll(folder); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// programs are those with points, built when they are first needed.
var programs struct {
	dir  string
	once sync.Once
}

// withPoints is the folder of the programs that are built with points.
func withPoints(t *testing.T) string {
	t.Helper()
	programs.once.Do(func() { build(t, programs.dir, "-tags", "crashpoints") })
	if _, err := os.Stat(filepath.Join(programs.dir, "nixfleet-agent")); err != nil {
		t.Fatal(err) // the first who needed them failed
	}
	return programs.dir
}

// build builds agent and control plane as releases are built, with more flags.
func build(t *testing.T, dir string, flags ...string) string {
	t.Helper()
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}, flags...)
	cmd := exec.Command("go", append(args, "./cmd/nixfleet-agent", "./cmd/nixfleet-control-plane")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := spawn(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	return dir
}

// What a program does not have in it nobody's environment can wake.
func TestReleasesHaveNoPoints(t *testing.T) {
	t.Parallel()
	traces := []string{variable, "crashpoint: "}
	for name, p := range registered(t) {
		traces = append(traces, name, p.durable)
	}
	release, armed := build(t, t.TempDir()), withPoints(t)
	var points []byte
	for _, program := range []string{"nixfleet-agent", "nixfleet-control-plane"} {
		text, err := os.ReadFile(filepath.Join(release, program))
		if err != nil {
			t.Fatal(err)
		}
		for _, trace := range traces {
			if bytes.Contains(text, []byte(trace)) {
				t.Errorf("%q is in the %s that is released", trace, program)
			}
		}
		text, err = os.ReadFile(filepath.Join(armed, program))
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, text...)
	}
	for name := range registered(t) {
		if !bytes.Contains(points, []byte(name)) {
			t.Errorf("%s is in no program that is built with points: looking for it shows nothing", name)
		}
	}
}

// result is what was seen in a trial.
type result struct {
	runs, boots string // when the program died
	wakes       string // what the machine ran after a power cut there
}

// Every point, with what follows.
func TestCrash(t *testing.T) {
	points := registered(t)
	bin := withPoints(t)
	var mu sync.Mutex
	results := map[string]result{}
	t.Run("at", func(t *testing.T) {
		for _, tr := range slices.Backward(trials()) { // those that wait long begin first
			for _, power := range []bool{false, true} {
				if power && !tr.power {
					continue
				}
				name := tr.name(power)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					r := tr.run(t, bin, power)
					mu.Lock()
					defer mu.Unlock()
					results[name] = r
				})
			}
		}
	})
	switch {
	case t.Failed():
		return
	case len(results) == 0:
		t.Fatal("no trial was run")
	}
	compare(t, points, results)
}

func (tr trial) name(power bool) string {
	name := tr.at + " in the " + tr.of
	if power {
		name += " and the power is cut"
	}
	return strings.ReplaceAll(name, "/", ".") // a test has one name
}

// run has the program die, starts it again, and looks whether all is well.
func (tr trial) run(t *testing.T, bin string, power bool) result {
	w := newWorld(t, bin, tr.story)
	if tr.story.prepare != nil {
		tr.story.prepare(w)
	}
	w.hold(tr.holds)
	w.watch()
	armed := variable + "=kill:" + tr.at
	switch {
	case tr.of == controlPlane:
		w.plane.start(armed)
		w.agent.keep()
	case tr.second:
		w.plane.keep()
		w.agent.start("")
	default:
		w.plane.keep()
		w.agent.start(armed)
	}
	if tr.story.drive != nil {
		tr.story.drive(w)
	}
	if tr.second {
		w.eventually("the guard has acted", func() (bool, string) {
			run := w.unit(host.SlotGuard)
			return run.Phase == host.RunEnded, fmt.Sprintf("%+v", run)
		})
		w.agent.start(armed)
	}
	w.died(tr)
	var r result
	r.runs, r.boots = w.look()
	if power {
		w.cutPower()
		r.wakes, _ = w.look()
		if r.wakes != r.boots {
			t.Errorf("the machine booted %s, its boot default was %s", r.wakes, r.boots)
		}
	}
	if tr.of == controlPlane {
		w.plane.keep()
	} else {
		lives := w.agent.lives()
		w.agent.keep()
		w.eventually("the agent is up again", func() (bool, string) { return w.agent.lives() > lives, w.agent.said() })
	}
	w.release(tr.holds)
	if tr.story.finish != nil {
		tr.story.finish(w)
	}
	w.settle(tr.ending(power))
	w.judge()
	return r
}

// died waits until the program is dead, and wants to see that it died at the point.
func (w *world) died(tr trial) {
	w.t.Helper()
	line := "crashpoint: kill at " + tr.point() + "\n"
	if tr.of == guard {
		w.eventually("the guard dies at "+tr.at, func() (bool, string) {
			run := w.unit(host.SlotGuard)
			return run.Phase == host.RunEnded && strings.Contains(run.Output, line), fmt.Sprintf("%+v", run)
		})
		return
	}
	p := w.agent
	if tr.of == controlPlane {
		p = w.plane
	}
	select {
	case <-p.ended:
	case <-time.After(limit):
		w.t.Fatalf("the %s did not come to %s within %s", tr.of, tr.at, limit)
	}
	if !strings.HasSuffix(p.said(), line) {
		w.t.Fatalf("the %s did not die at %s", tr.of, tr.at)
	}
}

const tableFile = root + "/docs/crash-table.md"

const tableHead = `# What is left when a program dies

Made by ` + "`go test ./test/crash -update`" + ` from the crash points in the code and from real programs that
died at each of them by SIGKILL. "Runs" and "boots" are what the machine's current system and boot
default were when the program was dead. Then it was started again. Where an activation is under way the
same was done once more, and the machine's power was cut before the program was started again. In every
run the machine ran and booted prior or target, and nothing else, at every moment, and said in the end
which; the control plane had every event once, in order, and their chain held; the host had one
certificate for its token; and no lease, no claim and no outcome of a guard was left.

| point | in | program | durable there | when | runs | boots | ends | after a power cut |
|---|---|---|---|---|---|---|---|---|
`

// row is a trial's line in the table.
func (tr trial) row(p point, killed, cut result) string {
	runs, boots := killed.runs, killed.boots
	if tr.anyMoment {
		runs, boots = "prior or target", "prior or target"
	}
	after := "–"
	if tr.power {
		after = fmt.Sprintf("wakes in %s, %s", cut.wakes, tr.ending(true))
	}
	return fmt.Sprintf("| `%s` | [%s](../%s) | %s | %s | %s | %s | %s | %s | %s |\n",
		tr.at, filepath.Base(p.file), filepath.ToSlash(p.file), tr.of, p.durable, tr.story.when, runs, boots, tr.ending(false), after)
}

// compare holds the table in docs against what was seen, or writes it. When only
// some trials were run it looks for their rows.
func compare(t *testing.T, points map[string]point, results map[string]result) {
	t.Helper()
	var table strings.Builder
	table.WriteString(tableHead)
	all := true
	var rows []string
	for _, tr := range trials() {
		killed, ran := results[tr.name(false)]
		cut, ranToo := results[tr.name(true)]
		if !ran || tr.power && !ranToo {
			all = false
			continue
		}
		if tr.power && !tr.anyMoment && (killed.runs != cut.runs || killed.boots != cut.boots) {
			t.Errorf("%s: one time the machine ran %s and booted %s, the other %s and %s", tr.at, killed.runs, killed.boots, cut.runs, cut.boots)
		}
		row := tr.row(points[tr.point()], killed, cut)
		rows = append(rows, row)
		table.WriteString(row)
	}
	switch {
	case *update && os.Getenv("CI") == "true":
		t.Fatal("the table is not written by a check of it")
	case *update && !all:
		t.Fatal("the table is not written from some of the trials")
	case *update:
		if err := os.WriteFile(tableFile, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(tableFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, row := range rows {
		if !strings.Contains(string(have), row) {
			t.Errorf("docs/crash-table.md lacks, or has otherwise (go test ./test/crash -update writes it):\n%s", row)
		}
	}
	if all && string(have) != table.String() {
		t.Error("docs/crash-table.md has more than was seen: go test ./test/crash -update writes it")
	}
}
