package rollout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// A gate without a sentence for people fails here.
func TestGatesHaveSentences(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "gate.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Gate") {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		sentence := Gate(value).Sentence()
		if err != nil || sentence == "Held back by "+value || seen[sentence] {
			t.Errorf("%s has no sentence of its own: %q", value, sentence)
		}
		seen[sentence] = true
		return true
	})
	if len(seen) < 10 {
		t.Errorf("%d gates were found", len(seen))
	}
}
