package nixfleet_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryWaitHasItsHost: for every value of waiting_on there is a real host in the
// lab that is stuck for it, and that is asked: nixfleet-agent status and nixfleet why
// (Waits), or the host alone where nobody else can know (WaitsUnheard).
func TestEveryWaitHasItsHost(t *testing.T) {
	asked := map[string]bool{}
	files, err := filepath.Glob("test/lab/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scenarios: %v", err)
	}
	for _, file := range files {
		for _, call := range callsIn(t, file) {
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || method.Sel.Name != "Waits" && method.Sel.Name != "WaitsUnheard" {
				continue
			}
			value := call.Args[0]
			if made, ok := value.(*ast.CallExpr); ok { // WaitingOnProbe("name")
				value = made.Fun
			}
			asked[value.(*ast.SelectorExpr).Sel.Name] = true
		}
	}
	values := waitsIn(t, "internal/wire/waiting.go")
	if len(values) < 15 {
		t.Fatalf("only %d values were found: %v", len(values), values)
	}
	for _, value := range values {
		if !asked[value] && value != "WaitingOnNone" {
			t.Errorf("no host of the lab is stuck for wire.%s", value)
		}
	}
}

func parsed(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func callsIn(t *testing.T, file string) (calls []*ast.CallExpr) {
	t.Helper()
	ast.Inspect(parsed(t, file), func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			calls = append(calls, call)
		}
		return true
	})
	return calls
}

// waitsIn are the names of the values and of what makes them.
func waitsIn(t *testing.T, file string) (names []string) {
	t.Helper()
	for name, object := range topLevel(parsed(t, file)) {
		if strings.HasPrefix(name, "WaitingOn") && name != "WaitingOn" && object != token.TYPE {
			names = append(names, name)
		}
	}
	return names
}

// topLevel are the names that a file declares, each with its kind.
func topLevel(f *ast.File) map[string]token.Token {
	names := map[string]token.Token{}
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names[d.Name.Name] = token.FUNC
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range v.Names {
						names[name.Name] = d.Tok
					}
				}
			}
		}
	}
	return names
}
