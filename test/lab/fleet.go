package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// Fleet is an owner's folder, the control plane that serves it, and the tools
// that an owner uses.
type Fleet struct {
	Folder fleetdir.Folder
	URL    string
	Client *operator.Client

	lab       *Lab
	bin       string
	doc       map[string]any // the fleet document
	port      string
	arguments []string // of the control plane
	hosts     map[string]any
	refs      int
	plane     *exec.Cmd
}

// Fleet makes a fleet of no hosts whose machines trust the caches' keys, and
// starts its control plane, with further arguments. Policy has the fields of a
// rollout policy that differ from the defaults; one wave soaks for soakSecs.
func (l *Lab) Fleet(bin string, soakSecs int, policy map[string]any, plane []string, caches ...*Cache) *Fleet {
	l.T.Helper()
	port := strconv.Itoa(8443 + int(serial.Add(1))) // free: the lab has a network of its own
	f := &Fleet{lab: l, bin: bin, port: port, URL: "https://" + Gateway + ":" + port, hosts: map[string]any{}, arguments: plane}
	var err error
	f.Folder, err = fleetdir.Create(filepath.Join(l.Dir, "fleet"), fleetdir.Options{
		Names: []string{Gateway}, URL: f.URL, Operator: "lab", Now: time.Now(),
	})
	if err != nil {
		l.T.Fatal(err)
	}
	f.trustCaches(caches)
	all := map[string]any{
		"strategy":   "all",
		"waves":      []any{map[string]any{"selector": map[string]any{"all": true}, "soakMinutes": 0, "soakSecs": soakSecs}},
		"healthGate": map[string]any{"systemdFailedUnits": map[string]any{"max": 0}}, "onHealthFailure": fleet.HealthRollbackAndHalt,
	}
	maps.Copy(all, policy)
	f.doc = map[string]any{
		"schemaVersion": 1,
		"hosts":         f.hosts,
		"channels": map[string]any{"stable": map[string]any{
			"rolloutPolicy": "all", "reconcileIntervalMinutes": 30, "freshnessWindow": 1440, "signingIntervalMinutes": 60,
			"compliance": map[string]any{"frameworks": []any{}, "mode": "disabled"},
		}},
		"rolloutPolicies": map[string]any{"all": all},
		"waves":           map[string]any{}, "edges": []any{}, "channelEdges": []any{}, "disruptionBudgets": []any{},
		"meta": map[string]any{"schemaVersion": 1, "signedAt": nil, "ciCommit": nil},
	}
	f.Client, err = operator.New(operator.Config{URL: f.URL, CACert: f.Folder.CACert(),
		ClientCert: f.Folder.OperatorCert(), ClientKey: f.Folder.OperatorKey()})
	if err != nil {
		l.T.Fatal(err)
	}
	l.T.Cleanup(f.Client.Close)
	if err := os.MkdirAll(f.Folder.Release(), 0o755); err != nil {
		l.T.Fatal(err)
	}
	f.StartControlPlane()
	l.T.Cleanup(f.StopControlPlane)
	return f
}

// trustCaches pins the caches' keys in trust.json.
func (f *Fleet) trustCaches(caches []*Cache) {
	f.lab.T.Helper()
	var roots map[string]any
	text, err := os.ReadFile(f.Folder.Trust())
	if err == nil {
		err = json.Unmarshal(text, &roots)
	}
	if err != nil {
		f.lab.T.Fatal(err)
	}
	var keys []string
	for _, c := range caches {
		keys = append(keys, c.Key)
	}
	roots["cacheKeys"] = keys
	f.write(f.Folder.Trust(), roots)
}

func (f *Fleet) write(path string, v any) {
	f.lab.T.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		f.lab.T.Fatal(err)
	}
}

// StartControlPlane starts the control plane as a process.
func (f *Fleet) StartControlPlane() {
	f.lab.T.Helper()
	log, err := os.OpenFile(filepath.Join(f.lab.Dir, "control-plane.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.lab.T.Fatal(err)
	}
	defer log.Close() // the process has its own
	f.plane = exec.Command(filepath.Join(f.bin, "nixfleet-control-plane"), append([]string{
		"--listen", Gateway + ":" + f.port,
		"--db", "sqlite:" + filepath.Join(f.lab.Dir, "state.db"),
		"--release-source", f.Folder.Release(),
		"--trust-file", f.Folder.Trust(),
		"--tls-cert", f.Folder.ServerCert(), "--tls-key", f.Folder.ServerKey(),
		"--client-ca", f.Folder.CACert(), "--ca-cert", f.Folder.CACert(), "--ca-key", f.Folder.CAKey(),
		"--heartbeat", "2s", "--source-interval", "1s",
	}, f.arguments...)...)
	f.plane.Stdout, f.plane.Stderr = log, log
	if err := f.plane.Start(); err != nil {
		f.lab.T.Fatal(err)
	}
}

// StopControlPlane ends the control plane in order.
func (f *Fleet) StopControlPlane() {
	if f.plane == nil {
		return
	}
	_ = f.plane.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = f.plane.Wait()
	f.plane = nil
	if f.lab.T.Failed() {
		if text, err := os.ReadFile(filepath.Join(f.lab.Dir, "control-plane.log")); err == nil {
			f.lab.T.Logf("control plane:\n%s", text)
		}
	}
}

// tool runs the nixfleet program.
func (f *Fleet) tool(args ...string) string {
	f.lab.T.Helper()
	cmd := exec.Command(filepath.Join(f.bin, "nixfleet"), args...)
	cmd.Dir = string(f.Folder)
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.lab.T.Fatalf("nixfleet %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Why is what an operator is told about a host.
func (f *Fleet) Why(host string) string {
	f.lab.T.Helper()
	return f.tool("why", host, "--cp-url", f.URL, "--ca-cert", f.Folder.CACert(), "--client-cert", f.Folder.OperatorCert(), "--client-key", f.Folder.OperatorKey())
}

// Release signs and publishes the given systems (store paths by host) and gives
// the rollout's id.
func (f *Fleet) Release(systems map[string]string) string {
	f.lab.T.Helper()
	for host, path := range systems {
		f.hosts[host].(map[string]any)["closureHash"] = filepath.Base(path)
	}
	f.write(f.Folder.Fleet(), f.doc)
	f.refs++
	ref := fmt.Sprintf("%040x", f.refs)
	f.tool("release", "--fleet", f.Folder.Fleet(), "--sign-key", f.Folder.CIKey(), "--out", f.Folder.Release(), "--ref", ref)
	return "stable@" + ref
}

// Add declares a host with a new SSH host key, allows it a token, and gives what
// has to lie on its disk for the agent: file names and their contents.
func (f *Fleet) Add(host string) map[string]string {
	t := f.lab.T
	t.Helper()
	key := filepath.Join(f.lab.Dir, host+".key")
	if err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host, "-f", key); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(f.lab.Dir, host+".token")
	f.tool("token", "mint", host, "--ssh-key", key+".pub", "--sign-key", f.Folder.OrgRootKey(), "--nonces", f.Folder.Nonces(), "--out", token)
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	f.hosts[host] = map[string]any{
		"system": "x86_64-linux", "tags": []any{}, "channel": "stable",
		"closureHash": nil, "pubkey": strings.TrimSpace(read(key + ".pub")),
	}
	return map[string]string{
		"/etc/ssh/ssh_host_ed25519_key":  read(key),
		"/etc/nixfleet/agent/trust.json": read(f.Folder.Trust()),
		"/etc/nixfleet/agent/ca.pem":     read(f.Folder.CACert()),
		"/etc/nixfleet/agent/token":      read(token),
		unitDir + agentUnitName:          agentUnit(host, f.URL),
		unitDir + guardUnitName:          guardUnit,
	}
}

// unitDir is where the lab's services are, so that /etc is free for masks.
const unitDir = "/usr/local/lib/systemd/system/"

const (
	agentUnitName = "nixfleet-agent.service"
	guardUnitName = "nixfleet-guard.service"
)

// guardUnit is the guard of a boot: it starts in emergency mode, too, before any
// network, and is always the program that prior's agent has left a link to.
const guardUnit = `[Unit]
Description=nixfleet guard
DefaultDependencies=no
RequiresMountsFor=/var/lib/nixfleet-agent
ConditionPathExistsGlob=/var/lib/nixfleet-agent/lease*
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes
StartLimitIntervalSec=0
[Service]
ExecStart=/var/lib/nixfleet-agent/guard guard
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-1000
[Install]
WantedBy=sysinit.target
`

// agentUnit is the service as the NixOS module has it. In place of a unit of each
// system it starts the agent of the system that runs.
func agentUnit(host, url string) string {
	return `[Unit]
Description=nixfleet agent
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=` + agentProgram + ` ` + agentFlags(host, url) + ` --poll-interval 2s
EnvironmentFile=-/etc/nixfleet/agent/environment
EnvironmentFile=-/run/lab-next-agent
ExecStartPost=rm -f /run/lab-next-agent
Restart=always
RestartSec=1
TimeoutStopSec=25
WatchdogSec=60
StateDirectory=nixfleet-agent
StateDirectoryMode=0700
RuntimeDirectory=nixfleet-agent
UMask=0077
[Install]
WantedBy=multi-user.target
`
}

// agentFlags are those that an agent needs.
func agentFlags(host, url string) string {
	return "--control-plane-url " + url + " --machine-id " + host +
		" --ca-cert /etc/nixfleet/agent/ca.pem --bootstrap-token-file /etc/nixfleet/agent/token"
}

// Enrol puts the files on the host and starts its system's agent.
// Environment has the agent's further settings.
func (f *Fleet) Enrol(ctx context.Context, h *Host, files map[string]string, environment map[string]string) {
	t := f.lab.T
	t.Helper()
	for name, content := range files {
		if err := h.Write(ctx, name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var lines strings.Builder
	for name, value := range environment {
		fmt.Fprintf(&lines, "%s=%s\n", name, value)
	}
	if err := h.Write(ctx, "/etc/nixfleet/agent/environment", lines.String(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", guardUnitName}, {"systemctl", "enable", "--now", agentUnitName}} {
		if _, err := h.Exec(ctx, argv...); err != nil {
			t.Fatal(err)
		}
	}
}

// Host asks the control plane about a host in a rollout.
func (f *Fleet) Host(ctx context.Context, rollout, host string) (wire.RolloutHost, error) {
	all, err := operator.List[wire.RolloutHost](ctx, f.Client, wire.Fill(wire.PathRolloutHosts, rollout), "")
	if err != nil {
		return wire.RolloutHost{}, err
	}
	for _, h := range all {
		if h.Hostname == host {
			return h, nil
		}
	}
	return wire.RolloutHost{}, fmt.Errorf("%s is not in %s", host, rollout)
}

// AllEvents are those that all hosts sent in a rollout.
func (f *Fleet) AllEvents(ctx context.Context, rollout string) ([]wire.EventView, error) {
	return operator.List[wire.EventView](ctx, f.Client, wire.Fill(wire.PathRolloutEvents, rollout), "")
}

// Events are those that a host sent in a rollout.
func (f *Fleet) Events(ctx context.Context, rollout, host string) ([]wire.EventView, error) {
	all, err := f.AllEvents(ctx, rollout)
	return slices.DeleteFunc(all, func(e wire.EventView) bool { return e.Hostname != host }), err
}

// LastEvent is the kind of the newest event that a host sent in a rollout.
func (f *Fleet) LastEvent(ctx context.Context, rollout, host string) (string, error) {
	events, err := f.Events(ctx, rollout, host)
	if err != nil || len(events) == 0 {
		return "none", err
	}
	return string(events[len(events)-1].Kind), nil
}
