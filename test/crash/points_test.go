package crash

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// point is a crash point as the source has it.
type point struct {
	name    string
	file    string
	durable string // what is durable there
}

// registered are all points in the code, by name.
func registered(t *testing.T) map[string]point {
	t.Helper()
	found := map[string]point{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isHere(call.Fun) {
				return true
			}
			p, err := pointOf(call)
			if err != nil {
				t.Errorf("%s: %v", fset.Position(call.Pos()), err)
				return true
			}
			if p.file, err = filepath.Rel(root, path); err != nil {
				t.Error(err)
			}
			if older, ok := found[p.name]; ok {
				t.Errorf("%s is a point of %s, and of %s", p.name, older.file, p.file)
			}
			found[p.name] = p
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func isHere(f ast.Expr) bool {
	s, ok := f.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Here" {
		return false
	}
	pkg, ok := s.X.(*ast.Ident)
	return ok && pkg.Name == "crashpoint"
}

// pointOf reads the two literals of a call.
func pointOf(call *ast.CallExpr) (point, error) {
	var texts []string
	for _, arg := range call.Args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				texts = append(texts, text)
			}
		}
	}
	if len(texts) != 2 || len(call.Args) != 2 {
		return point{}, fmt.Errorf("a crash point has a name and a sentence, both literals")
	}
	p := point{name: texts[0], durable: texts[1]}
	if area, what, ok := strings.Cut(p.name, "/"); !ok || area == "" || what == "" || strings.ContainsAny(p.name, " #|`") {
		return point{}, fmt.Errorf("%q is no name of a crash point: area/moment", p.name)
	}
	if p.durable == "" || strings.ContainsAny(p.durable, "|\n") {
		return point{}, fmt.Errorf("%s does not say what is durable there", p.name)
	}
	return p, nil
}

// Every point in the code is run into, and nothing else is.
func TestEveryPointHasATrial(t *testing.T) {
	points := registered(t)
	if len(points) < 50 {
		t.Errorf("only %d points were found in the code", len(points))
	}
	tried := map[string]bool{}
	for _, tr := range trials() {
		name := tr.point()
		tried[name] = true
		if _, ok := points[name]; !ok {
			t.Errorf("there is no point %s in the code", name)
		}
	}
	for name, p := range points {
		if !tried[name] {
			t.Errorf("%s (%s) has no trial in stories_test.go", name, p.file)
		}
	}
}
