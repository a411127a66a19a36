// Command nixfleet-bench measures what nixfleet promises about speed and size,
// and writes docs/performance.md from what it measured.
//
// It runs the benchmarks of the packages and measures whole programs. Every
// figure becomes one JSON line in bench/results, with the machine, the commit
// and its budget; the page is generated from the newest line of each figure.
//
// The argument enrol measures enrolments alone.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Measured is one line of the results.
type Measured struct {
	Figure  string    `json:"figure"`
	Value   float64   `json:"value"`
	Unit    string    `json:"unit"`
	Budget  float64   `json:"budget"`
	AtLeast bool      `json:"atLeast,omitempty"` // the budget is a minimum
	How     string    `json:"how"`
	Machine string    `json:"machine"`
	Commit  string    `json:"commit"`
	At      time.Time `json:"at"`
}

// Met tells whether the figure keeps its budget.
func (m Measured) Met() bool {
	if m.AtLeast {
		return m.Value >= m.Budget
	}
	return m.Value <= m.Budget
}

func main() {
	parts := []func(func(Budget, float64)) error{benchmarks, programs, enrolments}
	switch {
	case len(os.Args) == 2 && os.Args[1] == "enrol":
		parts = []func(func(Budget, float64)) error{enrolments}
	case len(os.Args) > 1:
		fmt.Fprintln(os.Stderr, "usage: nixfleet-bench [enrol]")
		os.Exit(2)
	}
	if err := measure(parts); err != nil {
		fmt.Fprintln(os.Stderr, "nixfleet-bench:", err)
		os.Exit(1)
	}
}

func measure(parts []func(add func(Budget, float64)) error) error {
	commit, err := output("git", "rev-parse", "--short=12", "HEAD")
	if err != nil {
		return fmt.Errorf("run this in a checkout: %w", err)
	}
	root, err := output("git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	var all []Measured
	add := func(b Budget, value float64) {
		m := Measured{Figure: b.Figure, Value: value, Unit: b.Unit, Budget: b.Limit, AtLeast: b.AtLeast,
			How: b.How, Machine: machine(), Commit: commit, At: now}
		verdict := "met"
		if !m.Met() {
			verdict = "NOT MET"
		}
		fmt.Printf("%-60s %12s  budget %12s  %s\n", m.Figure, quantity(m.Value, m.Unit), quantity(m.Budget, m.Unit), verdict)
		all = append(all, m)
	}
	for _, part := range parts {
		if err := part(add); err != nil {
			return err
		}
	}
	if err := save(all, now); err != nil {
		return err
	}
	newest, err := results()
	if err != nil {
		return err
	}
	return report(newest)
}

// results are the newest lines of all figures that have a budget, in the order of
// the budgets.
func results() ([]Measured, error) {
	files, err := filepath.Glob(filepath.Join("bench", "results", "*.jsonl"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files) // by their dates
	newest := map[string]Measured{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			var m Measured
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			newest[m.Figure] = m
		}
	}
	var all []Measured
	for _, b := range budgets {
		if m, ok := newest[b.Figure]; ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// save writes the run as JSON lines.
func save(all []Measured, now time.Time) error {
	var lines strings.Builder
	enc := json.NewEncoder(&lines)
	for _, m := range all {
		if err := enc.Encode(m); err != nil {
			return err
		}
	}
	name := filepath.Join("bench", "results", now.Format("2006-01-02T150405")+".jsonl")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(lines.String()), 0o644)
}

// machine says on what was measured: processors and system.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d × %s, %s/%s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

func output(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
