package nixfleet_test

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// lessons are the rows of docs/proof.md, by room: how many each has.
var lessons = map[string]int{"A": 37, "B": 24, "C": 29, "D": 6, "E": 28}

var (
	lessonRow = regexp.MustCompile(`^\| ([A-Z][0-9]+) \| (.+) \| (.*) \|$`)
	proofName = regexp.MustCompile("`([a-z][a-z0-9/-]*)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)((?:/[^`]+)?)`")
	anyTest   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z][A-Za-z0-9_]*`)
)

// TestProofIsTrue: docs/proof.md has every lesson once, each with a test or with
// what is missing, and every test that it and docs/threat-model.md name exists
// where they say.
func TestProofIsTrue(t *testing.T) {
	tests := map[string]*tested{}
	for _, file := range []string{"docs/proof.md", "docs/threat-model.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := proofName.FindAllStringSubmatch(string(text), -1)
		if len(named) < 20 {
			t.Errorf("%s names %d tests", file, len(named))
		}
		if n := len(anyTest.FindAllString(proofName.ReplaceAllString(string(text), ""), -1)); n > 0 {
			t.Errorf("%s names %d tests without the folder that they are in: %q", file, n, anyTest.FindString(proofName.ReplaceAllString(string(text), "")))
		}
		for _, n := range named {
			folder, test, sub := n[1], n[2], strings.TrimPrefix(n[3], "/")
			if tests[folder] == nil {
				if tests[folder], err = testsIn(folder); err != nil {
					t.Fatalf("%s: %v", n[0], err)
				}
			}
			if err := tests[folder].has(test, sub); err != nil {
				t.Errorf("%s: %s: %v", file, n[0], err)
			}
		}
	}
}

func TestEveryLessonIsInTheProof(t *testing.T) {
	text, err := os.ReadFile("docs/proof.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for room, n := range lessons {
		for i := range n {
			missing[room+strconv.Itoa(i+1)] = true
		}
	}
	for line := range strings.Lines(string(text)) {
		row := lessonRow.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if row == nil {
			continue
		}
		id, must, held := row[1], row[2], row[3]
		if !missing[id] {
			t.Errorf("lesson %s is there twice, or is none", id)
		}
		delete(missing, id)
		if must == "" || !proofName.MatchString(held) && !strings.Contains(held, "not held yet: ") {
			t.Errorf("lesson %s says neither which test holds it nor what is missing", id)
		}
	}
	if len(missing) > 0 {
		t.Errorf("lessons that are missing: %v", slices.Sorted(maps.Keys(missing)))
	}
}

// tested is what the test files of one folder hold.
type tested struct {
	folder string
	funcs  map[string]bool
	texts  map[string]bool // string literals: names of subtests among them
}

// testsIn reads the test files of a folder; "root" is the module's own.
func testsIn(folder string) (*tested, error) {
	dir := folder
	if folder == "root" {
		dir = "."
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("%s has no tests (%v)", dir, err)
	}
	t := &tested{folder: dir, funcs: map[string]bool{}, texts: map[string]bool{}}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				t.funcs[f.Name.Name] = true
			}
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					t.texts[text] = true
				}
			}
			return true
		})
	}
	return t, nil
}

// has tells what is wrong with the name of a test. A subtest is called what a text
// in the test files says, or a file of the folder's testdata.
func (t *tested) has(test, sub string) error {
	if !t.funcs[test] {
		return fmt.Errorf("%s has no such test", t.folder)
	}
	if sub == "" || t.texts[sub] {
		return nil
	}
	found := false
	err := filepath.WalkDir(filepath.Join(t.folder, "testdata"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = found || strings.TrimSuffix(d.Name(), filepath.Ext(path)) == sub
		}
		return err
	})
	if err != nil || !found {
		return fmt.Errorf("%s has no case %q (%v)", t.folder, sub, err)
	}
	return nil
}

// What an environment variable may change is named here: none of them fakes an
// outcome. Flags are read by the programs' parsers, which have a test of their own.
func TestOnlyTheseVariablesAreRead(t *testing.T) {
	allowed := map[string][]string{
		"cmd/nixfleet/output.go":                     {"NO_COLOR"},
		"cmd/nixfleet/connection.go":                 {"XDG_CONFIG_HOME"},
		"cmd/nixfleet-agent/run.go":                  {"GOGC", "GOMEMLIMIT"},
		"internal/agent/probe/exec.go":               {"PATH"},
		"internal/agent/host/dirhost/unit.go":        {"PATH"},
		"internal/agent/host/nixos/machine_linux.go": {"name"}, // PATH and Nix's own, listed there
	}
	read := map[string]int{}
	for _, top := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			if built, err := build.Default.MatchFile(filepath.Dir(path), d.Name()); err != nil || !built {
				return err // of builds for tests, or of other systems
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 1 {
					return true
				}
				f, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || f.Sel.Name != "Getenv" && f.Sel.Name != "LookupEnv" && f.Sel.Name != "ExpandEnv" {
					return true
				}
				name := "?"
				switch arg := call.Args[0].(type) {
				case *ast.BasicLit:
					name, _ = strconv.Unquote(arg.Value) // "" is not allowed anywhere
				case *ast.Ident:
					name = arg.Name
				}
				read[path]++
				if !slices.Contains(allowed[path], name) {
					t.Errorf("%s reads the variable %s", path, name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, names := range allowed {
		if read[path] != len(names) {
			t.Errorf("%s reads %d variables, and %q are allowed", path, read[path], names)
		}
	}
}
