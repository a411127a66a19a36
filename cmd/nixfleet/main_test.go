package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// vectors are documents that other programs made and signed, with the verdict
// for each.
const vectors = "../../internal/trust/testdata/vectors"

// keyFiles are keys of every kind and form, made with openssl and ssh-keygen.
const keyFiles = "../../internal/trust/testdata/keys"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nixfleet": main})
}

// TestVerbs runs the verbs as a person would. Nothing of the machine's own
// settings reaches them.
func TestVerbs(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": code, "bundle": writeBundle},
		Setup: func(e *testscript.Env) error {
			for name, dir := range map[string]string{"VECTORS": vectors, "KEYS": keyFiles} {
				abs, err := filepath.Abs(dir)
				if err != nil {
					return err
				}
				e.Setenv(name, abs)
			}
			return nil
		},
	})
}

// code runs a command that must exit with the given code.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// nixfleet runs a verb in this process.
func nixfleet(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

func TestEveryVectorGetsItsVerdict(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(vectors, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ Name, Kind, Now, Expect, Why string }
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("there are no cases")
	}
	at := func(name string) string { return filepath.Join(vectors, name) }
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			args := []string{"verify", "artifact", at(c.Name + ".json"), "--kind", c.Kind, "--trust-file", at("trust.json"), "--now", c.Now, "--json"}
			if c.Kind == "fleet" {
				args = append(args, "--window-minutes", "1440")
			} else if c.Name == "manifest-refreshed" {
				args = append(args, "--fleet", at("fleet-resigned.json"), "--accepted", at("manifest-ok.json"))
			} else {
				args = append(args, "--fleet", at("fleet-ed25519.json"))
			}
			if strings.Contains(c.Why, "after manifest-ok was accepted") {
				args = append(args, "--accepted", at("manifest-ok.json"))
			}
			code, out, errOut := nixfleet(t, args...)
			var v verdict
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatalf("%v: %s%s", err, out, errOut)
			}
			if c.Expect == "ok" {
				if code != 0 || !v.OK || v.Error != nil || v.Key == nil || v.SignedAt == nil || (c.Kind == "manifest") != (v.PlanHash != nil) {
					t.Errorf("exit %d, %s; it is good", code, out)
				}
			} else if code != 1 || v.OK || v.Error == nil || *v.Error != c.Expect || *v.Detail == "" {
				t.Errorf("exit %d, %s; want %s", code, out, c.Expect)
			}
		})
	}
}
