package crash

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

const (
	variable = "NIXFLEET_CRASHPOINT"

	// limit is how long anything may take that happens by itself, on a busy machine.
	limit        = 2 * time.Minute
	requestLimit = 10 * time.Second
	poll         = 20 * time.Millisecond
)

// world is a fleet of one host.
type world struct {
	t     *testing.T
	story story

	fleet    *fleettest.Fleet
	host     *fleettest.Host
	cache    *hosttest.Cache
	machine  *dirhost.Machine
	operator *operator.Client
	plane    *program
	agent    *program

	prior, target fleet.Closure
	rollout       string
	next          fleet.Closure // of a second release, which only some stories have
	second        string        // its rollout

	turning sync.Mutex // held while the machine is turned off and on
}

// atomically makes what a switch program does to the running system one step, as
// real ones do, and has it wait while a file holds it, for some minutes at most.
const atomically = `live() {
	ln -sfn "../nix/store/$me" "$NIXFLEET_ROOT/run/.new-system"
	mv -T "$NIXFLEET_ROOT/run/.new-system" "$NIXFLEET_ROOT/run/current-system"
}
n=0
while [ -e "$NIXFLEET_ROOT/hold-$action-%s" ] && [ $n -lt 6000 ]; do sleep 0.05; n=$((n+1)); done
`

// newWorld makes everything and starts nothing.
func newWorld(t *testing.T, bin string, s story) *world {
	w := &world{t: t, story: s, fleet: fleettest.New(t, 1), cache: hosttest.NewCache(t)}
	w.host = w.fleet.Hosts[0]
	system := func(name, script string, more map[string]string) fleet.Closure {
		return w.cache.ClosureWith(name, fmt.Sprintf(atomically, name)+script, more)
	}
	w.prior = system("prior", hosttest.Obey, s.prior)
	w.target = system("target", s.script(), s.target)
	w.machine = w.install()
	if s.second {
		w.next = system("next", hosttest.Obey, s.prior)
	}
	w.declare()
	w.trustCache()
	w.writeHost()
	w.programs(bin)
	w.rollout = w.publish("1", w.target)
	return w
}

// install makes a machine that runs and boots prior.
func (w *world) install() *dirhost.Machine {
	m := w.cache.Open(filepath.Join(w.t.TempDir(), "a machine"))
	first := w.cache.Fetch("install", w.prior)
	forking.Lock()
	err := m.Fetch(w.t.Context(), first)
	forking.Unlock()
	w.ok(err)
	forking.RLock()
	defer forking.RUnlock()
	w.ok(m.Install(w.t.Context(), first))
	return m
}

// declare makes the fleet's policy a short one.
func (w *world) declare() {
	policy := w.fleet.Doc.RolloutPolicies["all"]
	policy.Policy = fleet.DefaultPolicy()
	policy.HealthFailureSecs = 1
	if w.story.aliveSecs > 0 {
		policy.AliveSecs = w.story.aliveSecs
	}
	w.fleet.Doc.RolloutPolicies["all"] = policy
	soak := max(w.story.soakSecs, 1)
	w.fleet.Doc.Waves[fleettest.Channel][0].SoakSecs = &soak
	h := w.fleet.Doc.Hosts[w.host.Name]
	h.System = host.System()
	w.fleet.Doc.Hosts[w.host.Name] = h
}

func (w *world) publish(ref string, c fleet.Closure) string {
	return w.fleet.Publish(fmt.Sprintf("%040s", ref), c)
}

// trustCache pins the key of the test's cache.
func (w *world) trustCache() {
	var roots map[string]any
	text, err := os.ReadFile(w.fleet.Trust())
	w.ok(err)
	w.ok(json.Unmarshal(text, &roots))
	roots["cacheKeys"] = w.cache.Keys
	text, err = json.Marshal(roots)
	w.ok(err)
	w.ok(os.WriteFile(w.fleet.Trust(), text, 0o644))
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// in is a path in the machine's directory.
func (w *world) in(path string) string {
	return filepath.Join(w.machine.Dir(), filepath.FromSlash(path))
}

func (w *world) stateDir() string { return w.in("var/lib/nixfleet-agent") }

// writeHost puts what an agent needs on the machine: key, token, checks.
func (w *world) writeHost() {
	block, err := ssh.MarshalPrivateKey(w.host.Key, w.host.Name)
	w.ok(err)
	checks := map[string]any{}
	if w.story.check != "" {
		self, err := user.Current()
		w.ok(err)
		checks["service"] = map[string]any{
			"kind": "exec", "mode": "enforce", "command": []string{"/bin/sh", "-c", w.story.check, w.machine.Dir()},
			"user": self.Username, "intervalSeconds": 1,
		}
	}
	healthChecks, err := json.Marshal(checks)
	w.ok(err)
	for name, content := range map[string][]byte{
		"etc/key": pem.EncodeToMemory(block), "etc/token.json": w.fleet.Token(w.host), "etc/health-checks.json": healthChecks,
	} {
		w.ok(os.MkdirAll(filepath.Dir(w.in(name)), 0o755))
		w.ok(os.WriteFile(w.in(name), content, 0o600))
	}
}

// programs says how control plane and agent are started.
func (w *world) programs(bin string) {
	address := freeAddress(w.t)
	logs := w.t.TempDir()
	w.plane = &program{t: w.t, name: "control plane", log: filepath.Join(logs, "control-plane"), argv: []string{
		filepath.Join(bin, "nixfleet-control-plane"), "--listen=" + address,
		"--tls-cert=" + w.fleet.ServerCert(), "--tls-key=" + w.fleet.ServerKey(),
		"--client-ca=" + w.fleet.CACert(), "--ca-cert=" + w.fleet.CACert(), "--ca-key=" + w.fleet.CAKey(),
		"--trust-file=" + w.fleet.Trust(), "--release-source=" + w.fleet.Release(), "--source-interval=500ms", "--heartbeat=2s",
		"--db=sqlite:" + filepath.Join(logs, "state.db"), "--log-format=json",
	}}
	w.agent = &program{t: w.t, name: "agent", log: filepath.Join(logs, "agent"), argv: []string{
		filepath.Join(bin, "nixfleet-agent"), "--control-plane-url=https://" + address, "--machine-id=" + w.host.Name,
		"--poll-interval=2s", "--trust-file=" + w.fleet.Trust(), "--ca-cert=" + w.fleet.CACert(),
		"--bootstrap-token-file=" + w.in("etc/token.json"), "--state-dir=" + w.stateDir(), "--ssh-host-key-file=" + w.in("etc/key"),
		"--health-checks-config=" + w.in("etc/health-checks.json"), "--clock-policy=trust", "--min-free-nix=1MiB", "--min-free-boot=1MiB",
		"--cache-url=" + w.cache.URL, "--socket=", "--log-format=json", "--host-backend=dirhost:" + w.machine.Dir(),
	}}
	var err error
	w.operator, err = operator.New(operator.Config{URL: "https://" + address, CACert: w.fleet.CACert(), ClientCert: w.fleet.OperatorCert(), ClientKey: w.fleet.OperatorKey()})
	w.ok(err)
	w.t.Cleanup(w.operator.Close)
	for _, p := range []*program{w.agent, w.plane} {
		w.t.Cleanup(func() {
			p.stop(syscall.SIGKILL)
			if w.t.Failed() {
				w.t.Logf("the %s said:\n%s", p.name, p.said())
			}
		})
	}
}

// ports are below those that the kernel gives away by itself, so that one stays
// free while its control plane is dead.
var ports atomic.Int64

const firstPort, lastPort = 20000, 32000

func freeAddress(t *testing.T) string {
	for firstPort+ports.Load() < lastPort {
		address := net.JoinHostPort("127.0.0.1", strconv.FormatInt(firstPort+ports.Add(1), 10))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// look is what runs and what boots, by name. Both are one of the story's closures,
// or the run has failed.
func (w *world) look() (runs, boots string) {
	w.turning.Lock()
	defer w.turning.Unlock()
	facts, err := w.machine.Facts(context.Background())
	if err != nil {
		w.t.Errorf("the machine cannot be looked at: %v", err)
	}
	return w.name("runs", facts.Current), w.name("boots", facts.BootDefault)
}

func (w *world) name(verb string, c fleet.Closure) string {
	switch {
	case c == w.prior:
		return "prior"
	case c == w.target:
		return "target"
	case c == w.next && c != "":
		return "next"
	}
	w.t.Errorf("the machine %s %q, which is neither prior nor target", verb, c)
	return "another"
}

// watch looks all the time until the test ends.
func (w *world) watch() {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(poll):
				w.look()
			}
		}
	}()
	w.t.Cleanup(func() { close(stop); <-stopped })
}

// cutPower turns the machine off and on. Its agent is not started.
func (w *world) cutPower() {
	w.agent.stop(syscall.SIGKILL)
	w.turning.Lock()
	defer w.turning.Unlock()
	w.ok(w.machine.PowerCycle())
}

// eventually waits until something is so; it says what it last saw otherwise.
func (w *world) eventually(what string, is func() (bool, string)) {
	w.t.Helper()
	last := ""
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(poll) {
		var yes bool
		if yes, last = is(); yes {
			return
		}
		if w.t.Failed() {
			break
		}
	}
	w.t.Fatalf("%s: not within %s: %s", what, limit, last)
}

// state is what the control plane says of the host in a rollout.
func (w *world) state(rollout string) (lifecycle.State, string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), requestLimit)
	defer cancel()
	rows, err := operator.List[wire.RolloutHost](ctx, w.operator, wire.Fill(wire.PathRolloutHosts, rollout), "")
	if err != nil {
		return "", err.Error()
	}
	if len(rows) != 1 {
		return "", fmt.Sprintf("%d hosts", len(rows))
	}
	return rows[0].State, fmt.Sprintf("%s %+v", rows[0].State, rows[0].Failure)
}

// is tells whether the machine runs and boots what is named.
func (w *world) is(runs, boots string) func() (bool, string) {
	return func() (bool, string) {
		r, b := w.look()
		return r == runs && b == boots, fmt.Sprintf("it runs %s and boots %s", r, b)
	}
}

// hold has units wait before they do anything.
func (w *world) hold(names []string) {
	for _, name := range names {
		w.ok(os.WriteFile(w.in("hold-"+name), nil, 0o644))
	}
}

func (w *world) release(names []string) {
	for _, name := range names {
		w.ok(os.Remove(w.in("hold-" + name)))
	}
}

// unit is how the run in a slot is.
func (w *world) unit(s host.Slot) host.Run {
	run, err := w.machine.Status(context.Background(), s)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("status of %s: %v", s, err)
	}
	return run
}
