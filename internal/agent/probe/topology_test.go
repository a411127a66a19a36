package probe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"nixfleet/internal/lifecycle"
)

// parse is Parse with a machine that nothing may touch.
func parse(data string) Topology { return Parse([]byte(data), Machine{}) }

func TestAbsentFileIsAnEmptyTopology(t *testing.T) {
	topology := Load(filepath.Join(t.TempDir(), "health-checks.json"), Machine{})
	if declared := topology.Declared(); declared == nil || len(declared) != 0 {
		t.Errorf("%#v", declared)
	}
}

func TestDefaults(t *testing.T) {
	for kind, probe := range map[string]struct {
		text    string
		timeout time.Duration
	}{
		"http": {`{"kind":"http","url":"http://[::1]:8080/"}`, 10 * time.Second},
		"tcp":  {`{"kind":"tcp","port":80,"mode":null}`, 5 * time.Second},
		"exec": {`{"kind":"exec","command":["true"],"retries":null}`, 10 * time.Second},
		"unit": {`{"kind":"unit","unit":"nginx"}`, 10 * time.Second},

		"evidence": {`{"kind":"evidence","framework":"nis2"}`, 10 * time.Second},
	} {
		got := parse(`{"p":` + probe.text + `}`).Probes[0]
		if got.Kind != kind || got.Mode != lifecycle.Enforce || got.Interval != 30*time.Second || got.Timeout != probe.timeout ||
			got.Grace != 0 || got.Retries != 0 || got.RunOnce {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}

func TestEveryFieldIsTaken(t *testing.T) {
	got := parse(`{"p":{"kind":"exec","mode":"observe","intervalSeconds":7,"runOnce":true,"startupGraceSeconds":3,"retries":2,
		"command":["true"],"expectExitCode":1,"timeoutSecs":4,"user":"nobody"}}`).Probes[0]
	if got.Mode != lifecycle.Observe || got.Interval != 7*time.Second || !got.RunOnce || got.Grace != 3*time.Second || got.Retries != 2 || got.Timeout != 4*time.Second {
		t.Errorf("%+v", got)
	}
}

func TestValidFile(t *testing.T) {
	want := []lifecycle.ProbeDeclared{
		{ProbeName: "disk", Kind: "exec", Mode: lifecycle.Enforce},
		{ProbeName: "nginx", Kind: "unit", Mode: lifecycle.Disabled},
		{ProbeName: "nis2", Kind: "evidence", Mode: lifecycle.Observe},
		{ProbeName: "ssh", Kind: "tcp", Mode: lifecycle.Observe},
		{ProbeName: "web", Kind: "http", Mode: lifecycle.Enforce},
	}
	if got := Load("testdata/valid/all.json", Machine{}).Declared(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// TestOneBadProbeSpoilsNoOther: it fails in enforce mode and says why.
func TestOneBadProbeSpoilsNoOther(t *testing.T) {
	topology := parse(`{"b":{"kind":"tcp","mode":"observe","port":99999},"a":{"kind":"tcp","mode":"observe","port":80}}`)
	want := []lifecycle.ProbeDeclared{{ProbeName: "a", Kind: "tcp", Mode: lifecycle.Observe}, {ProbeName: "b", Kind: "tcp", Mode: lifecycle.Enforce}}
	declared := topology.Declared()
	if len(declared) != 2 || declared[0] != want[0] || declared[1] != want[1] {
		t.Fatalf("%+v", declared)
	}
	if v := topology.Probes[1].Check(t.Context()); v.Status != lifecycle.Fail || !strings.Contains(v.Reason, "port 99999") {
		t.Errorf("%+v", v)
	}
}

// TestNamesStayUnique, also those of probes whose own name cannot be used.
func TestNamesStayUnique(t *testing.T) {
	long := strings.Repeat("n", maxName)
	tcp := `{"kind":"tcp","port":1}`
	topology := parse(fmt.Sprintf(`{"":%s,"invalid-name-1":%s,%q:%s,%q:%s,"systemd-failed-units":%s}`, tcp, tcp, long+"a", tcp, long+"b", tcp, tcp))
	var names []string
	for _, p := range topology.Probes {
		names = append(names, p.Name)
	}
	if want := []string{"invalid-name-1", "invalid-name-2", "invalid-name-3", "invalid-name-4", "invalid-name-5"}; !slices.Equal(names, want) {
		t.Error(names)
	}
}

// TestInvalid: every file of testdata/invalid is one failing enforce probe whose
// reason is the text of the .err beside it, to the letter. One that ends in "…" is its
// beginning: the rest is the JSON parser's.
func TestInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no invalid files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".err")
			if err != nil {
				t.Fatal(err)
			}
			probes := Load(file, Machine{}).Probes
			if len(probes) != 1 || probes[0].Mode != lifecycle.Enforce {
				t.Fatalf("%+v", probes)
			}
			got := probes[0].Check(t.Context())
			reason, begins := strings.CutSuffix(strings.TrimSpace(string(want)), "…")
			if got.Status != lifecycle.Fail || got.Reason != reason && !(begins && strings.HasPrefix(got.Reason, reason)) {
				t.Errorf("%s: %+v, want %s", probes[0].Name, got, want)
			}
		})
	}
}

func TestUnreadableFileIsOneFailingProbe(t *testing.T) {
	dir := t.TempDir() // a directory can be opened and not read
	large := filepath.Join(dir, "large.json")
	if err := os.WriteFile(large, []byte(`{"x":"`+strings.Repeat("a", maxFile)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{dir, large, filepath.Join(large, "below")} {
		probes := Load(file, Machine{}).Probes
		if len(probes) != 1 || probes[0].Name != ConfigProbe || probes[0].Mode != lifecycle.Enforce || probes[0].Check(t.Context()).Status != lifecycle.Fail {
			t.Errorf("%s: %+v", file, probes)
		}
	}
}

func TestWithKeepsTheOrder(t *testing.T) {
	topology := parse(`{"z":{"kind":"tcp","port":1},"a":{"kind":"tcp","port":1}}`).With(Probe{Name: FailedUnitsProbe, Kind: KindUnit})
	var names []string
	for _, p := range topology.Probes {
		names = append(names, p.Name)
	}
	if strings.Join(names, " ") != "a systemd-failed-units z" {
		t.Error(names)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("a", 600), strings.Repeat("é", 400), strings.Repeat("€", 400), strings.Repeat("\xff", 700), "cut \xe2\x82",
		strings.Repeat("a", 508) + "€€", strings.Repeat("a", 512), "",
	} {
		if got := bounded(text); len(got) > MaxReason || !utf8.ValidString(got) || (len(text) > 0) != (len(got) > 0) {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
	if got := bounded(strings.Repeat("a", 512)); strings.HasSuffix(got, "…") {
		t.Error("what fits is cut")
	}
	v := Verdict{Status: "", Reason: strings.Repeat("r", 600), SubResults: []lifecycle.SubResult{{Reason: strings.Repeat("s", 600)}}}.bounded()
	if v.Status != lifecycle.Fail || len(v.Reason) > MaxReason || len(v.SubResults[0].Reason) > MaxReason {
		t.Errorf("%+v", v)
	}
}

// FuzzParse: whatever a file holds, every name in it is a probe, and nothing that
// is wrong passes unrun.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		topology := Parse(data, Machine{})
		entries, err := split(data)
		if want := max(len(entries), 1); err != nil && len(topology.Probes) != 1 || err == nil && len(entries) > 0 && len(topology.Probes) != want {
			t.Fatalf("%d probes of %d", len(topology.Probes), len(entries))
		}
		names := map[string]bool{}
		for _, p := range topology.Probes {
			if names[p.Name] {
				t.Fatalf("two probes are %s", p.Name)
			}
			names[p.Name] = true
			if p.Name == "" || !utf8.ValidString(p.Name) || p.Check == nil || p.Interval < time.Second || p.Timeout < time.Second {
				t.Fatalf("%+v", p)
			}
		}
	})
}

// checkOf is the check of the only probe that text declares.
func checkOf(t *testing.T, text string, m Machine) func(context.Context) Verdict {
	t.Helper()
	probes := Parse([]byte(`{"p":`+text+`}`), m).Probes
	if len(probes) != 1 {
		t.Fatalf("%+v", probes)
	}
	return func(ctx context.Context) Verdict {
		ctx, cancel := context.WithTimeout(ctx, probes[0].Timeout)
		defer cancel()
		return probes[0].Check(ctx).bounded()
	}
}

func expect(t *testing.T, got Verdict, want string) {
	t.Helper()
	if want == "" {
		if got.Status != lifecycle.Pass || got.Reason != "" {
			t.Errorf("%+v, want a pass", got)
		}
		return
	}
	if got.Status != lifecycle.Fail || !strings.Contains(got.Reason, want) {
		t.Errorf("%+v, want a failure with %q", got, want)
	}
}

// TestEveryFieldIsDocumented with its row in docs/health-checks.md.
func TestEveryFieldIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/health-checks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		if name := field.Tag.Get("json"); !strings.Contains(string(doc), "\n| `"+name+"` |") {
			t.Errorf("%s is not there", name)
		}
	}
	// What the tests of each kind hold to the letter is there in the same words.
	for _, words := range []string{
		"no answer from <url>: dial tcp <address>: connect: connection refused", "no answer from <url> in time: ", "context deadline exceeded", "i/o timeout",
		"tls: failed to verify certificate: x509: ", "certificate signed by unknown authority", "stopped after 10 redirects",
		"<url> answered <status>, want <status>: <body>", "<url> answered <status>, then: ", "unexpected EOF", "<url>: the first 65536 bytes of the body do not contain ",
		"caCert: open <file>: ", "caCert <file>: no PEM certificate in it", "`dial tcp <address>: connect: connection refused`", "`dial tcp <address>: i/o timeout`", "dial tcp: lookup <host>: no such host",
		"<program> did not end in time and was killed: <output>", "<program>: exit status <code>, want <code>: <output>", "<program>: signal: ",
		"fork/exec <program>: ", "no such file or directory", "permission denied", `exec: "<program>": executable file not found in $PATH`,
		"`user: unknown user <user>`", "the agent is not root and cannot become another user",
		"systemd knows no such unit", "is not loaded: ", "its result is ", "but its result is ", "cannot be looked at: there is no systemd on this host",
		"there is no evidence: ", "evidence cannot be read: ", ".sig does not exist", "its signature has to be 64 bytes, raw or in base64",
		"was not signed by this host's SSH key, or was changed since", "changed while it was read, and was not whole the second time",
		"is malformed: ", "has the schemaVersion ", "this agent knows 1", "is of the host ", " ago, maxAgeSeconds is ",
		"before this system went live at ", "which this host's clock says is ", "has no control that is enforced, of the framework ", " enforced controls fail: ",
	} {
		if !strings.Contains(string(doc), words) {
			t.Errorf("no reason says %q", words)
		}
	}
}
