package agent_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/lifecycle"
)

var (
	typeLine   = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? \S+$`)
	docLine    = regexp.MustCompile("(?m)^\\| `(nixfleet_agent_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\|")
	labelName  = regexp.MustCompile(`(?:^|,)([a-z_]+)="`)
)

// TestMetricsAreThoseOfTheDocs: what is told over a whole rollout, of a type and
// with labels as documented, and nothing is documented that is never told.
func TestMetricsAreThoseOfTheDocs(t *testing.T) {
	told := map[string]string{} // type and labels, by name
	var last []byte
	story(t, func(w *world) {
		scrape := func() {
			last = w.agent.Metrics()
			labels := map[string]string{}
			for _, m := range sampleLine.FindAllSubmatch(last, -1) {
				var names []string
				for _, l := range labelName.FindAllStringSubmatch(string(m[2]), -1) {
					names = append(names, "`"+l[1]+"`")
				}
				labels[string(m[1])] = strings.Join(names, ", ")
			}
			for _, m := range typeLine.FindAllSubmatch(last, -1) {
				name, kind := string(m[1]), string(m[2])
				with, sampled := labels[name]
				if sampled || kind == "summary" {
					told[name] = kind + " " + with
				}
			}
		}
		r := w.release(w.v2)
		for w.mirror(r).State != lifecycle.Converged {
			scrape()
			time.Sleep(100 * time.Millisecond)
		}
		w.net.cut(true) // and something is waited for
		time.Sleep(5 * time.Minute)
		scrape()
	})
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range docLine.FindAllSubmatch(doc, -1) {
		documented[string(m[1])] = fmt.Sprintf("%s %s", m[2], strings.TrimSpace(string(m[3])))
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if documented[name] != told[name] {
			t.Errorf("%s is %q, and documented as %q", name, told[name], documented[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if told[name] == "" {
			t.Errorf("%s is documented and was never told", name)
		}
	}
	promtool(t, last)
}

// promtool has Prometheus' own tool look at a scrape.
func promtool(t *testing.T, scrape []byte) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("promtool is not here: scripts/deps installs it")
	}
	cmd := exec.CommandContext(t.Context(), tool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(scrape)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s\n%s", err, out, scrape)
	}
}

// TestLabelsAreEscaped: nothing that a label says can end it.
func TestLabelsAreEscaped(t *testing.T) {
	story(t, func(w *world) {
		w.config = func(c *agent.Config) { c.Version = "a \"b\"\\c\nd" }
		w.stop()
		w.start()
		time.Sleep(time.Second)
		if got := string(w.agent.Metrics()); !strings.Contains(got, `{version="a \"b\"\\c\nd",current=`) {
			t.Errorf("the metrics:\n%s", got)
		}
	})
}
