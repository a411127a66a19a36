package main

import (
	"bytes"
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/buildinfo"
	"nixfleet/internal/controlplane/fleettest"
)

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func try(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e buffer
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

// flags are those of a control plane that works.
func flags(t *testing.T) []string {
	t.Helper()
	f := fleettest.New(t, 1)
	return []string{
		"--db=sqlite:" + filepath.Join(t.TempDir(), "state.db"), "--release-source=" + f.Release(), "--trust-file=" + f.Trust(),
		"--tls-cert=" + f.ServerCert(), "--tls-key=" + f.ServerKey(), "--client-ca=" + f.CACert(), "--ca-cert=" + f.CACert(), "--ca-key=" + f.CAKey(),
	}
}

// A wrong value is answered with the flag, the value and what is allowed, and 2.
func TestWrongValues(t *testing.T) {
	good := flags(t)
	for _, c := range []struct {
		flag string
		says []string
	}{
		{"--nonsense", []string{"--nonsense"}},
		{"--heartbeat=soon", []string{"--heartbeat", "soon"}},
		{"--heartbeat=10ms", []string{"--heartbeat", "10ms", "1s to 1h"}},
		{"--agent-cert-validity=1s", []string{"--agent-cert-validity", "1s", "at least 1m0s"}},
		{"--source-interval=1ns", []string{"--source-interval", "1ns", "100ms"}},
		{"--db=mysql:x", []string{"--db", "mysql:x", "sqlite:PATH"}},
		{"--log-format=xml", []string{"--log-format", "xml", "json"}},
		{"--log-level=loud", []string{"--log-level", "loud"}},
		{"--listen=nowhere", []string{"--listen", "nowhere", ":PORT"}},
		{"--metrics-listen=nowhere", []string{"--metrics-listen", "nowhere", ":PORT"}},
		{"--ca-key=", []string{"--ca-cert", "--ca-key"}},
		{"--tls-cert=", []string{"--tls-cert", "required"}},
	} {
		code, _, said := try(t, append(append([]string{}, good...), c.flag)...)
		for _, part := range c.says {
			if code != exitUse || !strings.Contains(said, part) {
				t.Errorf("%s: %d, %s; %q is missing", c.flag, code, said, part)
			}
		}
	}
	t.Setenv("NIXFLEET_CONTROL_PLANE_HEARTBEAT", "10ms")
	if code, _, said := try(t, good...); code != exitUse || !strings.Contains(said, "10ms") {
		t.Errorf("the environment was not looked at: %d %s", code, said)
	}
}

func TestVerbs(t *testing.T) {
	good := flags(t)
	verb := func(name string) []string { return append([]string{name}, good...) }
	if code, out, _ := try(t, "--version"); code != exitOK || out != "nixfleet-control-plane "+buildinfo.Version()+"\n" {
		t.Errorf("version: %d %s", code, out)
	}
	if code, out, said := try(t, verb("check")...); code != exitOK || !strings.Contains(out, "good") {
		t.Errorf("check: %d %s %s", code, out, said)
	}
	if code, out, said := try(t, "rebuild", good[0]); code != exitOK || out != "rebuilt\n" {
		t.Errorf("rebuild: %d %s %s", code, out, said)
	}
	if code, out, said := try(t, "version", "--schema", good[0]); code != exitOK || strings.TrimSpace(out) == "" {
		t.Errorf("schema: %d %s %s", code, out, said)
	}
	if code, out, _ := try(t, "serve", "--help"); code != exitOK || !strings.Contains(out, "--release-source") {
		t.Errorf("help: %d %s", code, out)
	}
	if code, _, said := try(t, append(verb("check"), "--trust-file=/nonexistent")...); code != exitNo || !strings.Contains(said, "/nonexistent") {
		t.Errorf("check without trust roots: %d %s", code, said)
	}
}

func TestNewerDatabaseIsLeftAlone(t *testing.T) {
	good := flags(t)
	if code, _, said := try(t, append([]string{"check"}, good...)...); code != exitOK {
		t.Fatal(said)
	}
	db, err := sql.Open("sqlite", strings.TrimPrefix(good[0], "--db=sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if code, _, said := try(t, good...); code != exitNewer || !strings.Contains(said, "newer") {
		t.Errorf("%d %s", code, said)
	}
}

// Serve ends with 0 when it is asked to.
func TestServeEndsWhenAsked(t *testing.T) {
	args := append(flags(t), "--listen=127.0.0.1:0", "--metrics-listen=:0")
	ctx, cancel := context.WithCancel(t.Context())
	var out, said buffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, args, &out, &said) }()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(said.String(), `"serving"`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not serve: %s", said.String())
		}
	}
	cancel()
	if code := <-ended; code != exitOK || !strings.Contains(said.String(), `"stopped"`) {
		t.Errorf("%d %s", code, said.String())
	}
}
