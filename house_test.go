// Package nixfleet_test holds the rules about the tree itself.
package nixfleet_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// listed is what `go list -json` says about one package.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) map[string]listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./cmd/...", "./internal/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]listed{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// The pure packages decide; they never look at a clock, a file or a socket. What
// they may import is listed, so that a new import is a decision.
func TestPurePackagesStayPure(t *testing.T) {
	all := packages(t)
	std := []string{"bytes", "cmp", "errors", "fmt", "iter", "maps", "math", "slices", "sort", "strconv", "strings", "time", "unicode/utf8"}
	allowed := map[string][]string{
		"nixfleet/internal/lifecycle": append(slices.Clone(std), "nixfleet/internal/fleet"),
		"nixfleet/internal/rollout":   append(slices.Clone(std), "encoding/json", "nixfleet/internal/fleet", "nixfleet/internal/lifecycle"),
	}
	for name, imports := range allowed {
		p, ok := all[name]
		if !ok {
			t.Errorf("%s is missing", name)
		}
		for _, i := range p.Imports {
			if !slices.Contains(imports, i) {
				t.Errorf("%s imports %s", name, i)
			}
		}
	}
}

// The agent and the control plane share only what is meant to be shared.
func TestAgentAndControlPlaneStayApart(t *testing.T) {
	for name, p := range packages(t) {
		for _, dep := range p.Deps {
			agent := strings.HasPrefix(name, "nixfleet/internal/agent") || name == "nixfleet/cmd/nixfleet-agent"
			plane := strings.HasPrefix(name, "nixfleet/internal/controlplane") || name == "nixfleet/cmd/nixfleet-control-plane"
			if agent && strings.HasPrefix(dep, "nixfleet/internal/controlplane") || plane && strings.HasPrefix(dep, "nixfleet/internal/agent") {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
}

// Each of these is called from one place only: the owner of the state.
func TestOnlyTheOwnersCall(t *testing.T) {
	for _, rule := range []struct {
		call  string
		in    []string // folders that may call it
		paths []string // folders that are searched
	}{
		{"lifecycle.Step(", []string{"internal/agent/reducer.go", "internal/controlplane/core/"}, []string{"cmd", "internal"}},
		{"rollout.Plan(", []string{"internal/controlplane/core/"}, []string{"cmd", "internal"}},
		{"exec.Command", []string{
			"internal/agent/host/",   // the only packages that change a machine
			"internal/agent/probe/",  // exec probes
			"internal/demo/",         // starts the fleet's processes
			"cmd/nixfleet/",          // the operator's hooks and git
			"internal/controlplane/", // git sources, the CA command
			"internal/release/",      // signing hooks
			"cmd/nixfleet-agent/",    // the check of a damaged journal runs in a child
			"cmd/nixfleet-bench/",    // starts what it measures
		}, []string{"cmd", "internal"}},
	} {
		args := append([]string{"grep", "-lIF", "--untracked", rule.call, "--"}, rule.paths...)
		out, err := exec.Command("git", args...).Output()
		if err != nil {
			t.Errorf("nobody calls %s: %v", rule.call, err)
		}
		for file := range strings.FieldsSeq(string(out)) {
			ok := strings.HasSuffix(file, "_test.go")
			for _, in := range rule.in {
				// A folder with a slash at the end means that folder and those below it.
				ok = ok || strings.HasPrefix(file, in)
			}
			if !ok {
				t.Errorf("%s calls %s", file, rule.call)
			}
		}
	}
}

// The tour names functions and the files they are in: both must be true.
func TestTourIsTrue(t *testing.T) {
	text, err := os.ReadFile("docs/tour.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([A-Za-z]+)`\\s+in\\s+\\[([^]]+)\\]\\(\\.\\./([^)]+)\\)").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Fatalf("only %d names were found in the tour", len(named))
	}
	for _, n := range named {
		name, shown, file := n[1], n[2], n[3]
		if shown != file {
			t.Errorf("the tour shows %s and links %s", shown, file)
		}
		code, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |var |const )` + name + `\b`).Match(code) {
			t.Errorf("%s does not declare %s", file, name)
		}
	}
}

// The README names the tests that hold the promises: they must exist where it says.
func TestPromisesHaveTheirTests(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		for _, clause := range strings.Split(line, ";") {
			folder := regexp.MustCompile("in `([a-z/]+)`").FindStringSubmatch(clause)
			for _, name := range regexp.MustCompile("`(Test[A-Za-z]+)(…?)`").FindAllStringSubmatch(clause, -1) {
				found++
				if folder == nil {
					t.Errorf("%s: the README does not say where", name[1])
					continue
				}
				pattern := `^func ` + name[1]
				if name[2] == "" {
					pattern += `\(`
				}
				if out, err := exec.Command("git", "grep", "--untracked", "-E", pattern, "--", folder[1]+"/*_test.go").Output(); err != nil || len(out) == 0 {
					t.Errorf("%s is not in %s", name[1], folder[1])
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("the README names %d tests", found)
	}
}

// A newcomer finds every room from ARCHITECTURE.md.
func TestEveryRoomIsOnTheMap(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range packages(t) {
		room := strings.TrimPrefix(name, "nixfleet/")
		// The backends of host are one room, and so is what only tests use.
		for _, part := range []string{"internal/agent/host/", "internal/controlplane/fleettest"} {
			if strings.HasPrefix(room, part) {
				room = strings.TrimSuffix(part, "/")
			}
		}
		if !strings.Contains(string(text), "`"+room+"`") {
			t.Errorf("%s is not in ARCHITECTURE.md", room)
		}
	}
}

// Every row of the recovery table is met by an agent of a real host.
func TestEveryRecoveryRowIsMetInTheLab(t *testing.T) {
	text, err := os.ReadFile("docs/recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (R\d\d) \|`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 20 {
		t.Fatalf("only %d rows were found", len(rows))
	}
	for _, row := range rows {
		if out, err := exec.Command("git", "grep", "--untracked", "-E", `"([^"]* )?`+row[1]+`[" ]`, "--", "test/lab/*_test.go").Output(); err != nil || len(out) == 0 {
			t.Errorf("no host of the lab is to meet %s", row[1])
		}
	}
}
