package lab

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// deferral is one host on a system with D-Bus version 1, and its fleet.
type deferral struct {
	t         *testing.T
	ctx       context.Context
	lab       *Lab
	fleet     *Fleet
	cache     *Cache
	host      *Host
	files     map[string]string // that the agent needs
	installed string
	began     time.Time
}

const deferralHost = "web-01"

func newDeferral(ctx context.Context, t *testing.T, policy map[string]any) *deferral {
	t.Helper()
	l := Open(t)
	d := &deferral{t: t, ctx: ctx, lab: l, cache: l.Cache("good")}
	all := map[string]any{"healthFailureSecs": 3, "confirmWindowSecs": 20}
	maps.Copy(all, policy)
	d.fleet = l.Fleet(l.Programs(), 2, all, d.cache)
	d.files = d.fleet.Add(deferralHost)
	d.files["/etc/nixfleet/agent/health-checks.json"] = `{"healthy": {"kind": "exec", "mode": "enforce",
		"intervalSeconds": 1, "command": ["/usr/bin/test", "-e", "/run/current-system/healthy"]}}`
	d.installed = d.system("1", "")
	d.host = l.Host(ctx, deferralHost, nil)
	d.host.install(ctx, t, d.cache, d.installed)
	d.madeLive() // by the installation
	d.reboot()
	return d
}

// system builds a system and puts it into the cache.
func (d *deferral) system(version, fault string, further ...string) string {
	d.t.Helper()
	path := d.lab.System(deferralHost, version, fault, further...)
	d.cache.Push(path)
	return path
}

// enrol starts the agent. There has to be a release that names its host.
func (d *deferral) enrol() {
	d.t.Helper()
	d.fleet.Enrol(d.ctx, d.host, d.files, map[string]string{
		"NIXFLEET_AGENT_CACHE_URL":     d.cache.URL,
		"NIXFLEET_AGENT_MIN_FREE_NIX":  "1MiB",
		"NIXFLEET_AGENT_MIN_FREE_BOOT": "1MiB",
	})
}

// release begins a scenario.
func (d *deferral) release(system string) string {
	d.t.Helper()
	d.began = time.Now()
	return d.fleet.Release(map[string]string{deferralHost: system})
}

// until waits for a state that the control plane knows.
func (d *deferral) until(what, rollout string, s lifecycle.State) wire.RolloutHost {
	d.t.Helper()
	var row wire.RolloutHost
	var last string
	err := Until(d.ctx, what, func() (bool, error) {
		var err error
		row, err = d.fleet.Host(d.ctx, rollout, deferralHost)
		if err != nil {
			last = err.Error() // the rollout opens when the control plane has seen the release
			return false, nil
		}
		last = string(row.State)
		return row.State == s, nil
	})
	if err != nil {
		d.t.Fatalf("%s: %v (last seen: %s)", what, err, last)
	}
	return row
}

// staged waits for a target that waits for a boot.
func (d *deferral) staged(what, rollout, runs, boots string) {
	d.t.Helper()
	d.until(what, rollout, lifecycle.Deferred)
	d.verdict(what+": staged", rollout, Observed{Current: runs, BootDefault: boots, Profile: boots})
}

func (d *deferral) reboot() {
	d.t.Helper()
	if err := d.host.Reboot(d.ctx); err != nil {
		d.t.Fatal(err)
	}
}

// ended waits for the end of a scenario.
func (d *deferral) ended(what, rollout string, s lifecycle.State, cause lifecycle.Cause, on string) {
	d.t.Helper()
	row := d.until(what, rollout, s)
	if row.Failure != nil && row.Failure.Cause != cause || row.Failure == nil && cause != "" {
		d.t.Errorf("%s: failure %+v, want cause %q", what, row.Failure, cause)
	}
	d.verdict(what, rollout, On(on))
}

func (d *deferral) verdict(what, rollout string, want Observed) {
	d.t.Helper()
	seen, err := d.host.Observe(d.ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	event, err := d.fleet.LastEvent(d.ctx, rollout, deferralHost)
	if err != nil {
		d.t.Fatal(err)
	}
	verdict := "PASS"
	if seen != want {
		verdict = "FAIL"
		d.t.Errorf("%s: %v, want %v", what, seen, want)
	}
	d.t.Logf("%s %s: %v, last event %s, %.1f s", verdict, what, seen, event, time.Since(d.began).Seconds())
}

// madeLive are the versions that a switch program made live since the last look.
func (d *deferral) madeLive() string {
	d.t.Helper()
	out, err := d.host.Exec(d.ctx, "sh", "-c", "cat /var/lib/lab-made-live; : > /var/lib/lab-made-live")
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.Join(strings.Fields(out), " ")
}

// TestDeferredByHand is a host that people boot. Nothing of what may not be swapped
// is ever made live under it, forwards or back.
func TestDeferredByHand(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	d := newDeferral(ctx, t, nil)
	bus, intf := d.system("2", "", "dbus=2"), d.system("3", "", "dbus=2", "interface=2")
	notBooted := d.system("4", "", "dbus=3", "interface=2")
	takenBack := d.system("5", "", "dbus=4", "interface=2")
	sick := d.system("6", "probe", "dbus=5", "interface=2")

	const inhibited = "another D-Bus, booted into by hand"
	r := d.release(bus)
	d.enrol()
	d.staged(inhibited, r, d.installed, bus)
	d.reboot()
	d.ended(inhibited, r, lifecycle.Converged, "", bus)

	const interfaces = "another init interface, exit 100, booted into by hand"
	r = d.release(intf)
	d.staged(interfaces, r, bus, intf)
	d.reboot()
	d.ended(interfaces, r, lifecycle.Converged, "", intf)

	const old = "staged, and somebody booted the old system"
	r = d.release(notBooted)
	d.staged(old, r, intf, notBooted)
	if err := d.host.Write(ctx, "/boot/default-system", intf+"\n", 0o644); err != nil {
		t.Fatal(err)
	}
	d.reboot()
	d.ended(old, r, lifecycle.Reverted, lifecycle.CauseSwitch, intf)

	const signalled = "staged, and the operator takes it back"
	r = d.release(takenBack)
	d.staged(signalled, r, intf, takenBack)
	if err := d.fleet.Client.Post(ctx, wire.Fill(wire.PathRolloutRollback, r), wire.ActionRequest{Why: "it is bad"}, nil); err != nil {
		t.Fatal(err)
	}
	d.ended(signalled, r, lifecycle.Reverted, lifecycle.CauseSignal, intf)

	// The way back needs no permission to boot.
	const unhealthy = "booted into, its probe fails, only a boot goes back"
	r = d.release(sick)
	d.staged(unhealthy, r, intf, sick)
	before := d.host.Boots()
	d.reboot()
	d.ended(unhealthy, r, lifecycle.Reverted, lifecycle.CauseProbes, intf)
	if boots := d.host.Boots() - before; boots != 2 {
		t.Errorf("%s: %d boots", unhealthy, boots)
	}
	if live := d.madeLive(); live != "" {
		t.Errorf("made live in a running system: %s", live)
	}
}

// TestDeferredInWindow is a host that boots itself inside a window that is always
// open, but not over somebody who blocks it, and also without a message bus.
func TestDeferredInWindow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	d := newDeferral(ctx, t, map[string]any{
		"reboot":       "window",
		"rebootWindow": map[string]any{"days": []any{}, "start": "00:00", "minutes": 24 * 60, "tz": "UTC"},
	})
	second, third := d.system("2", "", "dbus=2"), d.system("3", "", "dbus=3")

	const window = "another D-Bus, in an open reboot window, after a backup that blocks it"
	if _, err := d.host.Exec(ctx, "systemd-run", "--quiet", "--unit=backup", "systemd-inhibit",
		"--what=shutdown", "--who=backup", "--why=it writes", "--mode=block", "sleep", "infinity"); err != nil {
		t.Fatal(err)
	}
	before := d.host.Boots()
	r := d.release(second)
	d.enrol()
	if err := Until(ctx, window, func() (bool, error) {
		log, err := d.host.Exec(ctx, "journalctl", "--quiet", "-u", agentUnitName, "-o", "cat")
		return strings.Contains(log, "blocks it: it writes"), err
	}); err != nil {
		t.Fatal(err)
	}
	d.staged(window, r, d.installed, second)
	if boots := d.host.Boots() - before; boots != 0 {
		t.Errorf("%d boots over a backup", boots)
	}
	if _, err := d.host.Exec(ctx, "systemctl", "stop", "backup"); err != nil {
		t.Fatal(err)
	}
	d.ended(window, r, lifecycle.Converged, "", second)

	const alone = "another D-Bus, in an open reboot window, while D-Bus is down"
	if _, err := d.host.Exec(ctx, "systemctl", "mask", "--runtime", "--now", "dbus.socket", "dbus.service"); err != nil {
		t.Fatal(err)
	}
	r = d.release(third)
	d.ended(alone, r, lifecycle.Converged, "", third)
	if boots := d.host.Boots() - before; boots != 2 {
		t.Errorf("%d boots", boots)
	}
}
