package lab

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/doctor"
	"nixfleet/internal/fleetdir"
)

// examined is what the doctor on the host finds, with the settings of its service.
func (s *Solo) examined() map[string]doctor.Finding {
	s.T.Helper()
	// It exits with 1 when something is wrong; what it says is judged.
	out, _ := s.Exec(s.Ctx, "sh", "-c", "set -a; . /etc/nixfleet/agent/environment; exec "+agentProgram+" doctor --json "+agentFlags(soloHost, s.Fleet.URL))
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		s.T.Fatalf("FAIL: the doctor says %q: %v", out, err)
	}
	findings := map[string]doctor.Finding{}
	for _, f := range all {
		findings[f.Check] = f
	}
	return findings
}

// TestDoctor plants on a real host, one after the other, what can be wrong with it.
// The doctor finds each, says what to do, and calls nothing else wrong; before and
// after all is well.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Environment: map[string]string{"NIXFLEET_AGENT_MIN_FREE_NIX": "64MiB", "NIXFLEET_AGENT_MIN_FREE_BOOT": "512KiB"}})
	unguarded := s.System("2", "", "guard=no")
	healthy := func(when string) {
		t.Helper()
		for check, f := range s.examined() {
			if f.Verdict != doctor.Well && check != "confirm-urls" {
				t.Errorf("FAIL: %s: %+v", when, f)
			}
		}
	}
	healthy("of a healthy host")

	key := func(kind, passphrase string) string {
		file := filepath.Join(t.TempDir(), "key")
		s.Check(run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", file))
		text, err := os.ReadFile(file)
		s.Check(err)
		return string(text)
	}
	const (
		state, hostKey = "/var/lib/nixfleet-agent", "/etc/ssh/ssh_host_ed25519_key"
		trust, checks  = "/etc/nixfleet/agent/trust.json", "/etc/nixfleet/agent/health-checks.json"
	)
	stranger, err := fleetdir.Create(filepath.Join(t.TempDir(), "stranger"), fleetdir.Options{
		Names: []string{Gateway}, URL: s.Fleet.URL, Operator: "stranger", Now: time.Now(),
	})
	s.Check(err)
	foreignCA, err := os.ReadFile(stranger.CACert())
	s.Check(err)
	sh := func(script string) func() { return func() { s.Run("sh", "-c", script) } }
	saved := func(file, plant string) (func(), func()) {
		return sh("cp -a " + file + " /run/saved && " + plant), sh("rm -f " + file + "; mv /run/saved " + file)
	}
	type ailment struct {
		what           string
		plant, mend    func()
		wrong          string // the checks that find it
		detail, remedy string // of the first of them
	}
	on := func(file, what, plant, wrong, detail, remedy string) ailment {
		a := ailment{what: what, wrong: wrong, detail: detail, remedy: remedy}
		a.plant, a.mend = saved(file, plant)
		return a
	}
	with := func(file, what, content, wrong, detail, remedy string) ailment {
		a := on(file, what, ":", wrong, detail, remedy)
		save := a.plant
		a.plant = func() { save(); s.Put(file, content, 0o600) }
		return a
	}
	nixSays := func(line string) func() { return func() { s.Put("/etc/nix/nix.conf", line+"\n", 0o644) } }
	for _, a := range []ailment{
		{"the state directory is not there", sh("systemctl stop nixfleet-agent; mv " + state + " /var/lib/saved"),
			sh("mv /var/lib/saved " + state), "state-directory", state + " is not there", "install -d -m 700 " + state},
		{"the state directory is in memory", sh("mount -t tmpfs -o mode=700 tmpfs " + state),
			sh("umount " + state), "state-directory", state + " is in memory", "declare it persistent"},
		{"the state directory is open to others", sh("chmod 755 " + state), sh("chmod 700 " + state + "; systemctl start nixfleet-agent"),
			"state-directory", "mode 0755", "chmod 700 " + state},

		on(hostKey, "there is no host key", "rm "+hostKey, "host-key", "no such file", "ssh-keygen -t ed25519"),
		on(hostKey, "the host key can be read by all", "chmod 644 "+hostKey, "host-key", "mode 0644", "chmod 600 "+hostKey),
		with(hostKey, "the host key is RSA", key("rsa", ""), "host-key", "RSA", "ssh-keygen -t ed25519"),
		with(hostKey, "the host key is encrypted", key("ed25519", "secret"), "host-key", "encrypted", "ssh-keygen -t ed25519"),

		on(trust, "there is no trust file", "rm "+trust, "trust-file", "no such file", "--trust-file"),
		with(trust, "the trust file is malformed", "{", "trust-file", trust, "--trust-file"),
		on(trust, "the trust file has no key of the CI", `sed -i 's/"ciReleaseKey"/"noKey"/' `+trust, "trust-file", "ciReleaseKey", "--trust-file"),

		with("/etc/nixfleet/agent/ca.pem", "the control plane is of another authority", string(foreignCA), "control-plane", "unknown authority", "--ca-cert"),
		{"the control plane is down", func() { s.Fleet.StopControlPlane() }, func() { s.Fleet.StartControlPlane() },
			"control-plane", "connection refused", "whether the control plane runs"},
		{"the cache is dead", func() { s.Cache.Break(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }) }, func() { s.Cache.Mend() },
			"caches", "EOF", "--cache-url"},
		on("/etc/nixfleet/agent/environment", "there is no second uplink", "sed -i s/10.77.0.2/10.77.0.1/ /etc/nixfleet/agent/environment",
			"second-uplink caches", "there is one uplink only", "--confirm-url"),

		{"Nix wants no signatures", nixSays("require-sigs = false"), nixSays(""), "nix-settings", "require-sigs is false", "nix.settings.require-sigs"},
		{"Nix believes a cache", nixSays("extra-substituters = http://10.77.0.2:1?trusted=1"), nixSays(""),
			"nix-settings", "is believed without signatures", "nix.settings.substituters"},
		{"the store is full", sh(`fallocate -l $(($(stat -f -c '%a * %S' /nix/store) - 48 * 1048576)) /var/lab-ballast`), sh("rm /var/lab-ballast; sync"),
			"store-space", "MiB are free", "nix-collect-garbage"},
		{"the boot file system is full", sh("cp /boot/default-system /run/; mount -t tmpfs -o size=2m tmpfs /boot; cp /run/default-system /boot/; fallocate -l 1900k /boot/ballast"),
			sh("umount /boot"), "boot-space", "MiB are free", "configurationLimit"},
		{"the switch lock is held", sh("mkdir -p /run/nixos; systemd-run --quiet --unit=other flock /run/nixos/switch-to-configuration.lock sleep infinity; " +
			"until grep -q FLOCK /proc/locks && ! flock -n /run/nixos/switch-to-configuration.lock true; do sleep 0.05; done"),
			sh("systemctl stop other"), "switch-lock", "under way", "lslocks"},
		{"the system has no guard", sh("nix-store --realise " + unguarded + " --option substituters " + s.Cache.URL + " --option trusted-public-keys " + s.Cache.Key +
			"; ln -sfn " + unguarded + " /run/current-system"), sh("ln -sfn " + s.First + " /run/current-system"),
			"guard-units", "nixfleet-guard.service", "enable nixfleet"},
		{"the health checks are no JSON", func() { s.Put(checks, "{", 0o644) }, sh("rm " + checks), "health-checks", "health-checks-config", "correct " + checks},
		{"a health check lacks its port", func() { s.Put(checks, `{"app": {"kind": "tcp"}}`, 0o644) }, sh("rm " + checks), "health-checks", "app: port", "correct " + checks},
	} {
		a.plant()
		findings := s.examined()
		a.mend()
		var wrong []string
		for check, f := range findings {
			if f.Verdict == doctor.Wrong {
				wrong = append(wrong, check)
			}
		}
		slices.Sort(wrong)
		want := strings.Fields(a.wrong)
		first := findings[want[0]]
		slices.Sort(want)
		if !slices.Equal(wrong, want) || !strings.Contains(first.Detail, a.detail) || !strings.Contains(first.Remedy, a.remedy) {
			t.Errorf("FAIL %s: want %v to be wrong, %q and %q; wrong are %v, and it says %+v", a.what, want, a.detail, a.remedy, wrong, first)
			continue
		}
		t.Logf("PASS %s: %s; to do: %s", a.what, first.Detail, first.Remedy)
	}
	healthy("after all was mended")
}
