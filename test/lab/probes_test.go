package lab

import (
	"fmt"
	"strings"
	"testing"

	"nixfleet/internal/lifecycle"
)

// probesOfEachKind look at what runs on the host; that of evidence is in
// TestEvidenceProbe.
const probesOfEachKind = `{
  "web": {"kind": "http", "url": "http://127.0.0.1:8080/healthz", "bodyContains": "all is well", "intervalSeconds": 1, "timeoutSecs": 1},
  "tls": {"kind": "http", "url": "https://127.0.0.1:8443/", "caCert": "/etc/web-ca.pem", "intervalSeconds": 1},
  "port": {"kind": "tcp", "port": 9000, "intervalSeconds": 1},
  "far": {"kind": "tcp", "host": "10.77.255.254", "port": 9000, "connectTimeoutSecs": 1, "intervalSeconds": 1},
  "check": {"kind": "exec", "command": ["/usr/local/bin/check"], "intervalSeconds": 1, "timeoutSecs": 1},
  "app": {"kind": "unit", "unit": "app", "intervalSeconds": 1},
  "up": {"kind": "unit", "unit": "multi-user.target"},
  "nis2": {"kind": "evidence", "framework": "nis2"}
}`

const appUnit = "[Service]\nExecStart=/usr/bin/sleep infinity\n"

// TestProbes asks a real HTTP server, TCP listener, command and unit. Each is broken
// in every way, and mended; what the host then says is compared to the letter.
// Nobody collects evidence on the host, so the probe of it does not run.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{})
	s.Works()
	s.Put("/usr/local/bin/check", "#!/bin/sh\nexit 0\n", 0o755)
	s.Put(unitDir+"web.service", "[Service]\nRuntimeDirectory=web\nRuntimeDirectoryPreserve=yes\nExecStart=/usr/local/bin/workload serve /run/web\n", 0o644)
	s.Put(unitDir+"app.service", appUnit, 0o644)
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "start", "web", "app")
	s.Run("ip", "address", "add", "10.77.255.254/32", "dev", "lo")
	s.Eventually("the web server to have a certificate", func() bool {
		_, err := s.Exec(s.Ctx, "cp", "/run/web/cert.pem", "/etc/web-ca.pem")
		return err == nil
	})
	s.Put("/etc/nixfleet/agent/health-checks.json", probesOfEachKind, 0o644)
	second := s.System("2", "")
	r := s.Release(second)
	s.Ended("every probe passes", r, lifecycle.Converged, "", second)
	if !s.Has(r, lifecycle.KindProbeTopologyDeclared, `"kind":"evidence","mode":"disabled"`) {
		t.Error("FAIL: a probe of evidence that nobody collects is not disabled")
	}

	sh := func(script string) func() { return func() { s.Run("sh", "-c", script) } }
	check := func(script string) func() {
		return func() {
			s.Put("/usr/local/bin/check.new", "#!/bin/sh\n"+script+"\n", 0o755)
			s.Run("mv", "/usr/local/bin/check.new", "/usr/local/bin/check")
		}
	}
	unit := func(text, script string) func() {
		return func() {
			s.Put(unitDir+"app.service", text, 0o644)
			s.Run("sh", "-c", script)
		}
	}
	mode := func(m string) func() { return sh("echo " + m + " > /run/web/mode") }
	const url = "http://127.0.0.1:8080/healthz"
	for _, c := range []struct {
		probe    string
		breaking func()
		reason   string
	}{
		{"web", mode("status"), url + " answered 500, want 200: the database is gone"},
		{"web", mode("redirect"), url + " answered 302, want 200"},
		{"web", mode("body"), url + `: the first 65536 bytes of the body do not contain "all is well"`},
		{"web", mode("large"), url + `: the first 65536 bytes of the body do not contain "all is well"`},
		{"web", mode("silent"), "no answer from " + url + " in time: context deadline exceeded"},
		{"web", mode("cut"), url + " answered 200, then: unexpected EOF"},
		{"web", sh("systemctl stop web"), "no answer from " + url + ": dial tcp 127.0.0.1:8080: connect: connection refused"},
		{"port", func() {}, "dial tcp 127.0.0.1:9000: connect: connection refused"}, // it was the same program
		{"web", sh("echo ok > /run/web/mode; systemctl start web"), ""},
		{"port", func() {}, ""},

		// It has another certificate now.
		{"tls", func() {}, "no answer from https://127.0.0.1:8443/: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"tls", sh("rm /etc/web-ca.pem"), "caCert: open /etc/web-ca.pem: no such file or directory"},
		{"tls", sh("echo none > /etc/web-ca.pem"), "caCert /etc/web-ca.pem: no PEM certificate in it"},
		{"tls", sh("cp /run/web/cert.pem /etc/web-ca.pem"), ""},

		{"far", sh("ip address del 10.77.255.254/32 dev lo"), "dial tcp 10.77.255.254:9000: i/o timeout"},
		{"far", sh("ip address add 10.77.255.254/32 dev lo"), ""},

		{"check", check("id -un; id -Gn; exit 3"), "/usr/local/bin/check: exit status 3, want 0: nobody\nnogroup"},
		{"check", check("echo working; sleep 300"), "/usr/local/bin/check did not end in time and was killed: working"},
		{"check", check("kill -9 $$"), "/usr/local/bin/check: signal: killed"},
		{"check", check("seq 1 9999; exit 1"), "/usr/local/bin/check: exit status 1, want 0: …" + endOfCount(9999, 512-len("/usr/local/bin/check: exit status 1, want 0: …"))},
		{"check", sh("chmod -x /usr/local/bin/check"), "fork/exec /usr/local/bin/check: permission denied"},
		{"check", sh("rm /usr/local/bin/check"), "fork/exec /usr/local/bin/check: no such file or directory"},
		{"check", check("exit 0"), ""},

		{"app", sh("systemctl stop app"), "app.service is inactive"},
		{"app", sh("systemctl start app"), ""},
		{"app", sh("systemctl kill --signal=KILL app"), "app.service is failed, its result is signal"},
		{"app", unit("[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1h\n", "systemctl daemon-reload; systemctl restart app"),
			"app.service is activating, its result is exit-code"},
		{"app", unit("[Service]\n", "systemctl stop app; systemctl reset-failed app; systemctl daemon-reload"), "app.service is not loaded: bad-setting"},
		{"app", sh("systemctl mask app"), "app.service is not loaded: masked"},
		{"app", sh("systemctl unmask app; rm " + unitDir + "app.service; systemctl daemon-reload"), "app.service: systemd knows no such unit"},
		{"app", unit(appUnit, "systemctl daemon-reload; systemctl start app"), ""},
	} {
		c.breaking()
		s.Probe(c.probe, c.reason)
	}
	if left := s.Run("sh", "-c", "pgrep -u nobody sleep || true"); left != "" {
		t.Errorf("FAIL: a command that was killed has left processes: %s", left)
	}

	s.Run("sh", "-c", "echo status > /run/web/mode")
	const reason = "answered 500, want 200: the database is gone"
	r = s.Release(s.System("3", ""))
	s.Ended("the web server is broken in the soak", r, lifecycle.Reverted, lifecycle.CauseProbes, second)
	if !s.Has(r, lifecycle.KindProbeResult, reason) {
		t.Error("FAIL: it does not say why the probe failed")
	}
}

// endOfCount is the end of what seq counts up to n, in at most so many bytes.
func endOfCount(n, bytes int) string {
	var all strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&all, i)
	}
	text := strings.TrimSpace(all.String())
	return text[len(text)-bytes:]
}
