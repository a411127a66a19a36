package wire_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/wire"
)

// constants reads the string constants of a file whose names begin with prefix,
// so that a new one cannot be forgotten in a test.
func constants(t *testing.T, file, prefix string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			found[spec.Names[0].Name] = constant.StringVal(constant.MakeFromLiteral(literal.Value, literal.Kind, 0))
		}
		return true
	})
	if len(found) == 0 {
		t.Fatalf("no constant %s… in %s", prefix, file)
	}
	return found
}

// TestWaitingOnHasSentences: a value without a sentence for people fails here.
func TestWaitingOnHasSentences(t *testing.T) {
	values := constants(t, "waiting.go", "WaitingOn")
	seen := map[string]bool{}
	for name, value := range values {
		sentence := wire.WaitingOn(value).Sentence()
		if sentence == "Waiting on "+value+"." || !strings.HasSuffix(sentence, ".") || seen[sentence] {
			t.Errorf("%s (%s) has no sentence of its own: %q", name, value, sentence)
		}
		seen[sentence] = true
	}
	published := "none control-plane cache disk-nix disk-boot switch-lock clock reboot window soak confirm persist hold quarantine acknowledgement"
	for _, value := range strings.Fields(published) {
		if wire.WaitingOn(value).Sentence() == "Waiting on "+value+"." {
			t.Errorf("the published value %s is not known", value)
		}
	}
	if want := len(strings.Fields(published)); len(values) != want {
		t.Errorf("%d values, %d are published", len(values), want)
	}
}

func TestWaitingOnProbe(t *testing.T) {
	w := wire.WaitingOnProbe("web:8080")
	if w != "probe:web:8080" || !strings.Contains(w.Sentence(), "web:8080") {
		t.Errorf("%s: %s", w, w.Sentence())
	}
	if name, ok := w.Probe(); !ok || name != "web:8080" {
		t.Errorf("%q, %v", name, ok)
	}
	if _, ok := wire.WaitingOnSoak.Probe(); ok {
		t.Error("soak is no probe")
	}
}

// TestEverySlugHasAStatus: 500 is the status of what nobody classified.
func TestEverySlugHasAStatus(t *testing.T) {
	for name, value := range constants(t, "errorbody.go", "Slug") {
		if slug := wire.Slug(value); slug.Status() == http.StatusInternalServerError && slug != wire.SlugInternal {
			t.Errorf("%s has no status", name)
		}
	}
	for slug, status := range map[wire.Slug]int{
		wire.SlugProtocol: 426, wire.SlugProtocolMissing: 400, wire.SlugForbidden: 403, wire.SlugTooLarge: 413,
		wire.SlugGap: 409, wire.SlugConflict: 409, wire.SlugRefused: 422, wire.SlugBadSignature: 422,
		wire.SlugNoSlot: 503, wire.SlugNoUpstream: 501, wire.SlugNonceUsed: 409, "never-heard-of": 500,
	} {
		if slug.Status() != status {
			t.Errorf("%s is %d, want %d", slug, slug.Status(), status)
		}
	}
}

func TestError(t *testing.T) {
	tests := []struct {
		err       *wire.Error
		text      string
		temporary bool
	}{
		{wire.Errorf(wire.SlugGap, "event %d is next", 7), "HTTP 409 gap: event 7 is next", false},
		{wire.Errorf(wire.SlugNoSlot, ""), "HTTP 503 no-slot", true},
		{wire.Errorf(wire.SlugTooMany, "slow down"), "HTTP 429 too-many-requests: slow down", true},
		{wire.Errorf(wire.SlugNoUpstream, "none"), "HTTP 501 no-upstream-cache: none", false},
		{&wire.Error{Code: 502, Detail: "Bad Gateway"}, "HTTP 502 Bad Gateway", true},
		{&wire.Error{Code: 404, Slug: wire.SlugNotFound, RetryAfter: time.Second}, "HTTP 404 not-found", false},
	}
	for _, test := range tests {
		if test.err.Error() != test.text || test.err.Temporary() != test.temporary {
			t.Errorf("%q, temporary %v; want %q, %v", test.err, test.err.Temporary(), test.text, test.temporary)
		}
	}
}

// TestPathsMatchTheirRoutes: what Fill makes is routed back with the same values,
// whatever is in them.
func TestPathsMatchTheirRoutes(t *testing.T) {
	for name, path := range constants(t, "path.go", "Path") {
		wildcards := strings.Count(path, "{")
		for _, value := range []string{"web-01", rollout, "a/b", "..", ".", "a b?c#d%2F", "é"} {
			values := make([]string, wildcards)
			for i := range values {
				values[i] = value + strconv.Itoa(i)
				if i == 0 {
					values[i] = value
				}
			}
			mux := http.NewServeMux()
			reached := false
			mux.HandleFunc("GET "+path, func(_ http.ResponseWriter, r *http.Request) {
				reached = true
				if wildcards == 1 {
					key := path[strings.Index(path, "{")+1 : strings.Index(path, "}")]
					if got := r.PathValue(key); got != values[0] {
						t.Errorf("%s: %q became %q", name, values[0], got)
					}
				}
			})
			request, err := http.NewRequest(http.MethodGet, "http://cp"+wire.Fill(path, values...), nil)
			if err != nil {
				t.Fatal(err)
			}
			mux.ServeHTTP(nil, request)
			if !reached {
				t.Errorf("%s with %q: %s is not routed to %s", name, value, request.URL, path)
			}
			if wildcards == 0 {
				break
			}
		}
	}
}

func TestFillPanicsOnWrongNumberOfValues(t *testing.T) {
	for _, values := range [][]string{{}, {"a", "b"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d values were taken", len(values))
				}
			}()
			wire.Fill(wire.PathHost, values...)
		}()
	}
}

func TestFinalStatuses(t *testing.T) {
	for name, value := range constants(t, "envelope.go", "Status") {
		final := wire.EventStatus(value).Final()
		stops := value == "gap" || value == "conflict" || value == "retry"
		if final == stops {
			t.Errorf("%s: final is %v", name, final)
		}
	}
}
