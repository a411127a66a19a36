package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// runs is how often each benchmark is run; its median is the figure.
const runs = 5

// benchmarks runs every benchmark that a budget names and reports the medians.
func benchmarks(add func(Budget, float64)) error {
	results := map[string]map[string]float64{}
	for _, b := range budgets {
		if b.Benchmark == "" {
			continue
		}
		key := b.Package + " " + b.Benchmark
		if results[key] == nil {
			out, err := output("go", "test", "-run", "^$", "-bench", "^"+b.Benchmark+"$", "-benchmem", "-count", strconv.Itoa(runs), b.Package)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", key, err, out)
			}
			results[key] = medians(out)
		}
		value, ok := results[key][b.Metric]
		if !ok {
			return fmt.Errorf("%s does not report %s", key, b.Metric)
		}
		add(b, value)
	}
	return nil
}

var metric = regexp.MustCompile(`([0-9.e+]+) ([A-Za-z/]+)`)

// medians reads the output of go test -bench: the median of each metric over
// the runs of one benchmark.
func medians(out string) map[string]float64 {
	values := map[string][]float64{}
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Benchmark") {
			continue
		}
		for _, m := range metric.FindAllStringSubmatch(line, -1) {
			if v, err := strconv.ParseFloat(m[1], 64); err == nil {
				values[m[2]] = append(values[m[2]], v)
			}
		}
	}
	median := map[string]float64{}
	for unit, all := range values {
		slices.Sort(all)
		median[unit] = all[len(all)/2]
	}
	return median
}

// binarySize builds the agent as it is released and weighs it.
func binarySize(add func(Budget, float64)) error {
	dir, err := os.MkdirTemp("", "nixfleet-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "nixfleet-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/nixfleet-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w: %s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	for _, b := range budgets {
		if b.Figure == "agent binary, stripped" {
			add(b, float64(info.Size()))
			return nil
		}
	}
	return errors.New("the binary's size has no budget")
}
