package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

const evidence = "/var/lib/nixfleet-compliance/evidence.json"

// TestEvidenceProbe is a host whose manifest enforces evidence. What a collector
// signed with the host's SSH key counts, every kind of bad evidence is refused with
// its reason, a soak does not end before there is good one, and a control that
// fails takes the host back.
func TestEvidenceProbe(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{})
	s.Works()
	s.Put("/etc/nixfleet/agent/health-checks.json",
		`{"nis2": {"kind": "evidence", "framework": "nis2", "maxAgeSeconds": 3600, "intervalSeconds": 1}}`, 0o644)
	compliance := s.Fleet.doc["channels"].(map[string]any)["stable"].(map[string]any)["compliance"].(map[string]any)
	compliance["frameworks"], compliance["mode"] = []any{"nis2"}, "enforce"
	policy := s.Fleet.doc["rolloutPolicies"].(map[string]any)["all"].(map[string]any)
	policy["healthFailureSecs"] = 60 // the soak is to wait, and not to end badly

	collect := func(flags ...string) { s.Run(append([]string{"/usr/local/bin/workload", "collect"}, flags...)...) }
	collected := func() string { return s.Run("sh", "-c", `sed -n 's/.*"collectedAt": "\(.*\)",/\1/p' `+evidence) }

	second := s.System("2", "")
	r := s.Release(second)
	s.Until("the soak", r, lifecycle.Soaking)
	s.Probe("nis2", "there is no evidence: "+evidence+" does not exist")
	collect("--ago", "10m")
	s.ProbeWith("nis2", evidence+" was collected at "+collected()+", before this system went live at ", func(live string) bool {
		at, err := time.Parse(time.RFC3339, live)
		return err == nil && time.Since(at) < time.Minute
	})
	// The soak of 2 s is long over.
	s.Waits(wire.WaitingOnProbe("nis2"))
	if row := s.Row(r); row.State != lifecycle.Soaking {
		t.Errorf("FAIL: without evidence it is %s", row.State)
	}
	collect()
	s.Ended("the soak waited for good evidence", r, lifecycle.Converged, "", second)
	s.Probe("nis2", "")

	key := filepath.Join(t.TempDir(), "stranger")
	s.Check(run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key))
	text, err := os.ReadFile(key)
	s.Check(err)
	s.Put("/root/stranger", string(text), 0o600)
	sh := func(script string) { s.Run("sh", "-c", script) }
	const notSigned = evidence + " was not signed by this host's SSH key, or was changed since"
	for _, c := range []struct {
		what  string
		plant func()
		want  string
	}{
		{"not signed", func() { sh("rm " + evidence + ".sig") }, evidence + " is not signed: " + evidence + ".sig does not exist"},
		{"a signature that is cut off", func() { collect(); sh("truncate -s 63 " + evidence + ".sig") },
			evidence + " is not signed: its signature has to be 64 bytes, raw or in base64"},
		{"another key", func() { collect("--key", "/root/stranger") }, notSigned},
		{"good again", func() { collect() }, ""},
		{"changed since", func() { collect("--failing", "logging"); sh(`sed -i 's/"passed": false/"passed": true/' ` + evidence) }, notSigned},
		{"a wrong signature", func() { collect(); sh("head -c 64 /dev/zero > " + evidence + ".sig") }, notSigned},
		{"malformed", func() { sh("echo '{' > " + evidence) }, evidence + " is malformed: jsontext: unexpected EOF after offset 2"},
		{"another host", func() { collect("--host", "web-02") }, evidence + ` is of the host "web-02", this is "web-01"`},
		{"another schema", func() { collect("--schema", "2") }, evidence + " has the schemaVersion 2, this agent knows 1"},
		{"another framework", func() { collect("--framework", "iso27001") }, evidence + " has no control that is enforced, of the framework nis2"},
		{"a control that fails", func() { collect("--failing", "logging") }, "1 of 3 enforced controls fail: logging: it is not as it has to be"},
		{"not there", func() { sh("rm " + evidence + "*") }, "there is no evidence: " + evidence + " does not exist"},
		{"good at last", func() { collect() }, ""},
	} {
		c.plant()
		s.Probe("nis2", c.want)
	}
	collect("--ago", "2h")
	s.ProbeWith("nis2", evidence+" was collected 2h0m", func(rest string) bool { return strings.HasSuffix(rest, "s ago, maxAgeSeconds is 3600") })
	collect("--ago", "-1h")
	s.ProbeWith("nis2", evidence+" was collected at "+collected()+", which this host's clock says is ", func(ahead string) bool {
		d, err := time.ParseDuration(strings.TrimSuffix(ahead, " ahead"))
		return err == nil && d <= time.Hour && d > 59*time.Minute && strings.HasSuffix(ahead, " ahead")
	})
	collect()
	s.Run("systemd-run", "--quiet", "--unit=writer", "sh", "-c",
		`while :; do sed "s/web-01/web-01-$(date +%N)/" `+evidence+` > /run/next && mv /run/next `+evidence+`.new && mv `+evidence+`.new `+evidence+`; sleep 0.2; done`)
	s.Probe("nis2", evidence+" changed while it was read, and was not whole the second time")
	s.Run("systemctl", "stop", "writer")

	policy["healthFailureSecs"] = 3
	r = s.Release(s.System("3", ""))
	s.Until("the soak", r, lifecycle.Soaking)
	collect("--failing", "disk-encryption")
	s.Ended("an enforced control fails in the soak", r, lifecycle.Reverted, lifecycle.CauseProbes, second)
	if !s.Has(r, lifecycle.KindProbeResult, "1 of 3 enforced controls fail: disk-encryption") {
		t.Error("FAIL: it does not say which control failed")
	}
}
