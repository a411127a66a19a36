package main

import (
	"fmt"
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
		var values [2]float64
		for i, name := range []string{b.Benchmark, b.Against} {
			if name == "" {
				continue
			}
			key := b.Package + " " + name
			if results[key] == nil {
				out, err := output("go", "test", "-run", "^$", "-bench", pattern(name), "-benchmem", "-count", strconv.Itoa(runs), b.Package)
				if err != nil {
					return fmt.Errorf("%s: %w\n%s", key, err, out)
				}
				results[key] = medians(out, name)
			}
			value, ok := results[key][b.Metric]
			if !ok {
				return fmt.Errorf("%s does not report %s", key, b.Metric)
			}
			values[i] = value
		}
		if b.Against != "" {
			values[0] /= values[1]
		}
		add(b, values[0])
	}
	return nil
}

// pattern matches one benchmark and nothing else.
func pattern(name string) string {
	return "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
}

var metric = regexp.MustCompile(`([0-9.e+]+) ([A-Za-z/]+)`)

// medians reads the output of go test -bench: the median of each metric over
// the runs of one benchmark.
func medians(out, name string) map[string]float64 {
	values := map[string][]float64{}
	for line := range strings.Lines(out) {
		ran, rest, _ := strings.Cut(line, "\t")
		ran = strings.TrimSpace(ran)
		if dash := strings.LastIndexByte(ran, '-'); dash > 0 {
			ran = ran[:dash] // the number of processors
		}
		if ran != name {
			continue
		}
		for _, m := range metric.FindAllStringSubmatch(rest, -1) {
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
