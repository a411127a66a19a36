package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrongValues gives every flag a value that cannot be: the message names the
// flag, the value and what is allowed, and the program ends with 2.
func TestWrongValues(t *testing.T) {
	for _, test := range []struct{ flag, value, allowed string }{
		{"control-plane-url", "http://cp.test", "https://"},
		{"control-plane-url", "cp.test:8443", "https://"},
		{"control-plane-url", "https://user:secret@cp.test", "https://"},
		{"machine-id", "web/01", "cannot"},
		{"poll-interval", "soon", "90s"},
		{"poll-interval", "-5s", "90s"},
		{"poll-interval", "0", "at least 1s"},
		{"compliance-gate-mode", "maybe", `"disabled","permissive","enforce","auto"`},
		{"renewal-threshold", "50%", "between 0 and 1"},
		{"renewal-threshold", "1", "between 0 and 1"},
		{"max-freshness-window", "1 day", "90s"},
		{"clock-policy", "never", `"auto","require","trust"`},
		{"max-clock-skew", "much", "90s"},
		{"defer-on", "udev", "dbus, systemd, kernel"},
		{"min-free-nix", "1GB", "GiB"},
		{"min-free-nix", "9999999999TiB", "GiB"},
		{"min-free-boot", "-1", "MiB"},
		{"cache-url", "ftp://cache.test", "https://"},
		{"confirm-url", "http://uplink.test", "https://"},
		{"metrics-listen", "9100", "host:port"},
		{"metrics-listen", "localhost:http", "host:port"},
		{"outbox-max", "lots", "MiB"},
		{"log-format", "xml", `"auto","json","text"`},
		{"log-level", "loud", "debug, info, warn or error"},
		{"host-backend", "windows", "dirhost:<dir>"},
		{"host-backend", "dirhost:", "dirhost:<dir>"},
	} {
		t.Run(test.flag+"="+test.value, func(t *testing.T) {
			args := []string{"--control-plane-url=https://cp.test", "--machine-id=web-01", "--" + test.flag + "=" + test.value}
			code, said := try(t, args...)
			if code != exitUse {
				t.Errorf("ended with %d", code)
			}
			for _, want := range []string{"--" + test.flag, test.value, test.allowed} {
				if !strings.Contains(said, want) {
					t.Errorf("%q does not say %q", said, want)
				}
			}
		})
	}
}

func try(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // an agent that starts after all ends at once
	var out bytes.Buffer
	code = run(ctx, args, &out, &out)
	return code, out.String()
}

func TestWhatIsRequired(t *testing.T) {
	code, said := try(t)
	if code != exitUse || !strings.Contains(said, "--control-plane-url") || !strings.Contains(said, "--machine-id") {
		t.Errorf("%d %s", code, said)
	}
	if code, said := try(t, "--frobnicate"); code != exitUse || !strings.Contains(said, "--frobnicate") {
		t.Errorf("%d %s", code, said)
	}
}

// TestEveryFlagHasItsVariable sets wrong values through the environment.
func TestEveryFlagHasItsVariable(t *testing.T) {
	for variable, value := range map[string]string{
		"NIXFLEET_AGENT_CONTROL_PLANE_URL":    "http://cp.test",
		"NIXFLEET_AGENT_CP_URL":               "http://cp.test",
		"NIXFLEET_AGENT_MACHINE_ID":           "web/01",
		"NIXFLEET_AGENT_POLL_INTERVAL":        "soon",
		"NIXFLEET_AGENT_COMPLIANCE_GATE_MODE": "maybe",
		"NIXFLEET_AGENT_RENEWAL_THRESHOLD":    "2",
		"NIXFLEET_AGENT_MAX_FRESHNESS_WINDOW": "x",
		"NIXFLEET_AGENT_CLOCK_POLICY":         "x",
		"NIXFLEET_AGENT_MAX_CLOCK_SKEW":       "x",
		"NIXFLEET_AGENT_DEFER_ON":             "x",
		"NIXFLEET_AGENT_MIN_FREE_NIX":         "x",
		"NIXFLEET_AGENT_MIN_FREE_BOOT":        "x",
		"NIXFLEET_AGENT_CACHE_URL":            "x",
		"NIXFLEET_AGENT_CONFIRM_URL":          "x",
		"NIXFLEET_AGENT_METRICS_LISTEN":       "x",
		"NIXFLEET_AGENT_PREFETCH":             "x",
		"NIXFLEET_AGENT_OUTBOX_MAX":           "x",
		"NIXFLEET_AGENT_LOG_FORMAT":           "x",
		"NIXFLEET_AGENT_LOG_LEVEL":            "x",
		"NIXFLEET_AGENT_HOST_BACKEND":         "x",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("NIXFLEET_AGENT_MACHINE_ID", "web-01")
			if !strings.HasSuffix(variable, "_URL") || variable == "NIXFLEET_AGENT_CACHE_URL" || variable == "NIXFLEET_AGENT_CONFIRM_URL" {
				t.Setenv("NIXFLEET_AGENT_CP_URL", "https://cp.test")
			}
			t.Setenv(variable, value)
			if code, said := try(t); code != exitUse || !strings.Contains(said, value) {
				t.Errorf("%d %s", code, said)
			}
		})
	}
}

// TestFilesThatAreMissing: what the agent cannot start without is named.
func TestFilesThatAreMissing(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	flags := []string{
		"--control-plane-url=https://cp.test", "--machine-id=web-01", "--host-backend=dirhost:" + dir, "--state-dir=" + filepath.Join(dir, "state"), "--socket=",
		"--ssh-host-key-file=" + missing, "--trust-file=" + missing,
	}
	if code, said := try(t, flags...); code != exitNo || !strings.Contains(said, missing) {
		t.Errorf("no host key: %d %s", code, said)
	}
	if err := os.WriteFile(missing, []byte("-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := try(t, flags...); code != exitNo || !strings.Contains(said, "ssh-keygen -t ed25519") {
		t.Errorf("no usable host key: %d %s", code, said)
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if code, said := try(t, args...); code != exitOK || !strings.HasPrefix(said, "nixfleet-agent ") {
			t.Errorf("%v: %d %s", args, code, said)
		}
	}
}

func TestStatusWithoutAnAgent(t *testing.T) {
	code, said := try(t, "status", "--socket="+filepath.Join(t.TempDir(), "agent.sock"))
	if code != exitNo || !strings.Contains(said, "does not answer") {
		t.Errorf("%d %s", code, said)
	}
}
