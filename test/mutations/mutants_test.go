// Package mutations shows that the tests can fail: each entry of its JSON files
// is a deliberate defect, and names the test that must catch it.
package mutations

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var all = flag.Bool("all", false, "run every mutation, however long its test takes")

// With less than -all, tests that take longer than quick are left to `make
// mutants`, and no new mutation is begun after budget.
const (
	quick  = 5 * time.Second
	budget = 4 * time.Minute
	limit  = time.Minute // for one mutated run

	labLimit = 3 * time.Minute // for one of the lab, where a defect shows in what does not happen
)

// lab is the package of the tests on real hosts, which need root and more time than
// others.
const lab = "./test/lab"

// mutation is one defect: Old, which occurs once in File, replaced by New. Test
// in Package must then fail and print something that Message matches.
type mutation struct {
	File, Old, New, Package, Test, Message string

	Slow bool // the test takes longer than quick, so it need not be tried

	topic string // the file that lists it
}

func TestMutants(t *testing.T) {
	begin := time.Now()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ran, left := 0, 0
	green := map[string]time.Duration{} // how long a test takes without a defect
	for _, m := range interleaved(t) {
		if !*all && (m.Slow || time.Since(begin) > budget) || m.Package == lab && (!*all || os.Geteuid() != 0) {
			left++
			continue
		}
		key := m.Package + " " + m.Test
		if _, ok := green[key]; !ok {
			t.Run("without/"+m.name(), func(t *testing.T) {
				out, took, err := m.run(t, root, "")
				if err != nil || !strings.Contains(out, "--- PASS: "+m.Test) {
					t.Fatalf("the test does not pass without the defect: %v\n%s", err, out)
				}
				green[key] = took
			})
		}
		if took, ok := green[key]; !ok || !*all && took > quick {
			left++
			continue
		}
		ran++
		t.Run(m.name(), func(t *testing.T) { m.check(t, root) })
	}
	t.Logf("%d mutations tried, %d left to make mutants, %s", ran, left, time.Since(begin).Round(time.Second))
}

// interleaved is every mutation: first the first of each file, then the second
// of each, so that a run which ends early has tried something of every topic.
func interleaved(t *testing.T) []mutation {
	files, err := filepath.Glob("*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no mutations: %v", err)
	}
	var topics [][]mutation
	longest := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var topic []mutation
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&topic); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i := range topic {
			topic[i].topic = strings.TrimSuffix(file, ".json")
		}
		topics = append(topics, topic)
		longest = max(longest, len(topic))
	}
	var in []mutation
	for i := range longest {
		for _, topic := range topics {
			if i < len(topic) {
				in = append(in, topic[i])
			}
		}
	}
	return in
}

// name is the topic and the test.
func (m mutation) name() string { return m.topic + "/" + m.Test }

// check applies the defect to a copy of its file and expects the test to see it.
func (m mutation) check(t *testing.T, root string) {
	source := filepath.Join(root, m.File)
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), m.Old); n != 1 {
		t.Fatalf("%q occurs %d times in %s, not once", m.Old, n, m.File)
	}
	mutated := filepath.Join(t.TempDir(), "mutated.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(text), m.Old, m.New, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {source: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := m.run(t, root, overlay)
	switch {
	case err == nil:
		t.Errorf("not caught: %s with %q instead of %q passes %s", m.File, m.New, m.Old, m.Test)
	case !strings.Contains(out, "--- FAIL: "+m.Test):
		t.Errorf("the run ended in another way than by the test's verdict: %v\n%s", err, out)
	case !regexp.MustCompile(m.Message).MatchString(out):
		t.Errorf("the test failed without saying %q:\n%s", m.Message, out)
	}
}

// run runs the named test, with an overlay when one is given.
func (m mutation) run(t *testing.T, root, overlay string) (string, time.Duration, error) {
	t.Helper()
	limit := limit
	if m.Package == lab {
		limit = labLimit
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit) // the limit below is for the test alone, without its build
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-vet=off", "-ldflags=-w", "-timeout", limit.String(), "-run", "^"+strings.ReplaceAll(m.Test, "/", "$/^")+"$", m.Package)
	cmd.Dir = root
	if overlay != "" { // in the environment, so that programs which the test builds have the defect, too
		cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return string(out), duration(m.Test, string(out)), err
}

// duration is what `go test -v` says that the test took.
func duration(test, out string) time.Duration {
	match := regexp.MustCompile(`--- (?:PASS|FAIL): ` + regexp.QuoteMeta(test) + ` \(([0-9.]+s)\)`).FindStringSubmatch(out)
	if match == nil {
		return 0
	}
	took, err := time.ParseDuration(match[1])
	if err != nil {
		return 0
	}
	return took
}
