package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/probe"
	"nixfleet/internal/evidence"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

const (
	host1   = "web-01"
	channel = "stable"
)

func hash(b []byte) [32]byte { return sha256.Sum256(b) }

// world is one host with its control plane and its cache, in virtual time.
type world struct {
	t       *testing.T
	dir     string
	net     *network
	cp      *controlPlane
	cache   *hosttest.Cache
	ci      trust.Signer
	hostKey ed25519.PrivateKey
	machine string // the machine's folder
	runner  *dirhost.Functions
	policy  fleet.Policy
	config  func(*agent.Config) // last word on the agent's settings
	budget  bool                // manifests name the host in a budget
	ref     int                 // of the last rollout

	// Systems: what the machine runs at first, and where rollouts lead.
	v1, v2, v3 fleet.Closure

	mu      sync.Mutex
	program map[fleet.Closure]program // in place of obey
	probe   func() probe.Exit         // what the probe "app" finds
	guards  bool                      // a guard acts; else it only watches
	noGuard bool                      // a guard ends as soon as it is started
	logged  logBuffer
	agent   *agent.Agent
	cancel  context.CancelFunc
	done    chan error
}

// program is what a closure's switch program does; it gives the exit code.
type program func(ctx context.Context, w *world, c fleet.Closure, action string) int

// story runs a test in a world. What must be real, the cache's files and the
// machine's first system, is made before virtual time begins.
func story(t *testing.T, tell func(w *world)) {
	t.Helper()
	t.Parallel()
	cache := hosttest.NewCache(t)
	w := &world{
		cache: cache, dir: t.TempDir(),
		v1: cache.Closure("v1", hosttest.Obey), v2: cache.Closure("v2", hosttest.Obey), v3: cache.Closure("v3", hosttest.Obey),
	}
	w.machine = cache.NewMachine(w.v1).Dir()
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		w.build()
		w.start()
		tell(w)
		w.stop()
		w.checkEvidence()
	})
}

func (w *world) build() {
	w.net = newNetwork()
	w.program = map[fleet.Closure]program{}
	w.probe = func() probe.Exit { return probe.Exit{} }
	w.policy = fleet.DefaultPolicy()
	w.policy.SoakSecsByWave = []int{60}
	w.runner = &dirhost.Functions{Program: w.runProgram}
	w.t.Cleanup(func() {
		w.stop()
		w.runner.Close()
	})

	ca := w.buildFiles()
	serverKey, err := identity.NewKey()
	w.must(err)
	template, err := identity.ServerTemplate([]string{"cp.test"}, time.Now(), 365*24*time.Hour)
	w.must(err)
	server, err := ca.Issue(template, serverKey.Public())
	w.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	w.cp = newControlPlane(w.t, w.net, "cp.test:443", ca, tls.Certificate{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}, pool)

	cacheServer := &http.Server{Handler: http.FileServer(http.Dir(w.cache.Dir)), ErrorLog: log.New(io.Discard, "", 0)}
	l := w.net.listen("cache.test:80")
	served := make(chan struct{})
	go func() {
		defer close(served)
		cacheServer.Serve(l)
	}()
	w.t.Cleanup(func() {
		cacheServer.Close()
		l.Close()
		<-served
	})
}

// buildFiles makes what an agent finds on its host, and gives the authority that
// everybody believes.
func (w *world) buildFiles() identity.CA {
	_, ciKey, _ := ed25519.GenerateKey(rand.Reader)
	_, w.hostKey, _ = ed25519.GenerateKey(rand.Reader)
	var err error
	w.ci, err = trust.NewSigner(ciKey)
	w.must(err)

	caKey, err := identity.NewKey()
	w.must(err)
	ca, err := identity.NewCA("test", caKey, time.Now(), 10*365*24*time.Hour)
	w.must(err)
	caPEM := identity.EncodeCertificate(ca.Cert)
	w.write("ca.pem", caPEM)
	block, err := ssh.MarshalPrivateKey(w.hostKey, "")
	w.must(err)
	w.write("host_key", pem.EncodeToMemory(block))
	w.write("health.json", []byte(`{"app": {"kind": "exec", "command": ["/app"], "intervalSeconds": 30}}`))
	w.writeRoots(w.ci.Public(), string(caPEM))
	w.must(os.MkdirAll(w.path("state"), 0o700))
	w.write("state/agent-cert.pem", identity.EncodeCertificate(issueAgent(w.t, ca, w.hostPublic(), identity.DefaultValidity)))
	return ca
}

func (w *world) writeRoots(ci trust.Key, caPEM string) {
	key := map[string]any{"algorithm": ci.Algorithm, "public": base64.StdEncoding.EncodeToString(ci.Public)}
	doc, err := json.Marshal(map[string]any{
		"schemaVersion":  1,
		"ciReleaseKey":   map[string]any{"current": key, "previous": nil, "successor": nil, "retireAt": nil, "rejectBefore": nil},
		"orgRootKey":     nil,
		"cacheKeys":      w.cache.Keys,
		"rootCaPem":      nil,
		"issuanceCaPems": []string{caPEM},
	})
	w.must(err)
	w.write("trust.json", doc)
}

func issueAgent(t testing.TB, ca identity.CA, key ed25519.PublicKey, validity time.Duration) *x509.Certificate {
	t.Helper()
	template, err := identity.AgentTemplate(host1, "fleet.test", time.Now(), validity)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(template, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, data []byte) {
	w.t.Helper()
	w.must(os.WriteFile(w.path(name), data, 0o600))
}

// runProgram stands in for every switch program.
func (w *world) runProgram(ctx context.Context, u dirhost.Unit, out *os.File) int {
	if u.Program == guardProgram {
		return w.runGuard(ctx)
	}
	closure := fleet.Closure(filepath.Base(filepath.Dir(filepath.Dir(u.Program))))
	w.mu.Lock()
	run := w.program[closure]
	w.mu.Unlock()
	if run == nil {
		run = obey
	}
	fmt.Fprintf(out, "%s %s\n", closure, u.Args[0])
	return run(ctx, w, closure, u.Args[0])
}

func obey(_ context.Context, w *world, c fleet.Closure, action string) int {
	if action == "boot" {
		w.must(os.WriteFile(filepath.Join(w.machine, "boot/default"), []byte(c.Path()+"\n"), 0o644))
		return 0
	}
	link := filepath.Join(w.machine, "run/current-system")
	os.Remove(link)
	w.must(os.Symlink("../nix/store/"+string(c), link))
	return 0
}

// takes makes a program that needs time.
func takes(d time.Duration, then program) program {
	return func(ctx context.Context, w *world, c fleet.Closure, action string) int {
		select {
		case <-time.After(d):
			return then(ctx, w, c, action)
		case <-ctx.Done():
			return 143
		}
	}
}

func exits(code int) program {
	return func(context.Context, *world, fleet.Closure, string) int { return code }
}

func (w *world) setProgram(c fleet.Closure, p program) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.program[c] = p
}

func (w *world) setProbe(code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probe = func() probe.Exit { return probe.Exit{Code: code} }
}

// settings are those of every agent here.
func (w *world) settings() agent.Config {
	return agent.Config{
		ControlPlane:     &url.URL{Scheme: "https", Host: "cp.test:443"},
		MachineID:        host1,
		PollInterval:     time.Minute,
		TrustFile:        w.path("trust.json"),
		CACertFile:       w.path("ca.pem"),
		ClientCertFile:   w.path("state/agent-cert.pem"),
		ClientKeyFile:    w.path("host_key"),
		SSHHostKeyFile:   w.path("host_key"),
		StateDir:         w.path("state"),
		HealthChecksFile: w.path("health.json"),
		RenewalThreshold: 0.5,
		ClockPolicy:      agent.ClockTrust,
		CacheURLs:        []string{"http://cache.test"},
		Guard:            []string{guardProgram, "guard"},
		Version:          "test",
		Log:              slog.New(slog.NewJSONHandler(&w.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Clock:            func() agent.ClockState { return agent.ClockState{Now: time.Now(), Synchronised: true} },
		Probes: probe.Machine{
			Exec: func(context.Context, probe.Command) (probe.Exit, error) {
				w.mu.Lock()
				run := w.probe
				w.mu.Unlock()
				return run(), nil
			},
		},
	}
}

// start starts an agent on the machine.
func (w *world) start() {
	w.t.Helper()
	cfg := w.settings()
	if w.config != nil {
		w.config(&cfg)
	}
	m, err := dirhost.Open(w.machine, dirhost.Options{Dial: w.net.dial, Runner: w.runner})
	w.must(err)
	a, err := agent.New(cfg, m, w.net.dial)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	w.agent, w.cancel, w.done = a, cancel, make(chan error, 1)
	go func() { w.done <- a.Run(ctx) }()
}

// logBuffer is written by agents and read by tests.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// stop ends the agent as its service manager would.
func (w *world) stop() {
	w.t.Helper()
	if w.cancel == nil {
		return
	}
	w.cancel()
	if err := <-w.done; err != nil {
		w.t.Fatal(err)
	}
	w.cancel = nil
}

// crash ends the agent as SIGKILL would: what was committed by then is all that
// the next one finds.
func (w *world) crash() {
	w.t.Helper()
	saved := w.path("saved")
	w.must(os.RemoveAll(saved))
	w.must(os.CopyFS(saved, os.DirFS(w.path("state"))))
	w.stop()
	w.must(os.RemoveAll(w.path("state")))
	w.must(os.Rename(saved, w.path("state")))
}

// release publishes a rollout that takes the host to a closure, and offers it.
func (w *world) release(target fleet.Closure, change ...func(*fleet.Manifest)) string {
	w.t.Helper()
	m := w.manifest(target, change...)
	w.publish(m, w.ci)
	w.order(m.ID())
	return m.ID()
}

func (w *world) manifest(target fleet.Closure, change ...func(*fleet.Manifest)) *fleet.Manifest {
	w.ref++
	time.Sleep(time.Second) // no two releases are signed at the same time
	now := time.Now().UTC().Truncate(time.Second)
	policy := w.policy
	m := &fleet.Manifest{
		SchemaVersion: 1, DisplayName: "test", Channel: channel, ChannelRef: fmt.Sprintf("%040x", w.ref),
		FleetResolvedHash: strings.Repeat("0", 64),
		HostSet:           []fleet.Target{{Hostname: host1, TargetClosure: target}},
		Policy:            &policy, FreshnessWindowMinutes: 24 * 60, Attempt: 1,
		ComplianceFrameworks: []string{}, DisruptionBudgets: []fleet.Budget{},
		Meta: fleet.Meta{SchemaVersion: 1, SignedAt: &now},
	}
	if w.budget {
		one := 1
		m.DisruptionBudgets = []fleet.Budget{{Selector: fleet.Selector{All: true}, Hosts: []string{host1}, MaxInFlight: &one}}
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func (w *world) publish(m *fleet.Manifest, signer trust.Signer) {
	w.t.Helper()
	doc, err := json.Marshal(m)
	w.must(err)
	sig, err := trust.SignDocument(doc, signer)
	w.must(err)
	w.cp.locked(func() { w.cp.documents[wire.Fill(wire.PathManifest, m.ID())] = signed{doc, sig} })
}

func (w *world) order(rollout string) {
	w.cp.locked(func() {
		id := fmt.Sprintf("order-%d-%d", w.ref, len(w.cp.orders)+len(w.cp.rejects))
		w.cp.orders = append(w.cp.orders, wire.Order{OrderID: id, Kind: wire.OrderDispatch, Hostname: host1, RolloutID: rollout})
	})
}

func (w *world) signal(rollout string) {
	w.cp.locked(func() {
		w.cp.orders = append(w.cp.orders, wire.Order{OrderID: "signal-" + rollout, Kind: wire.OrderRollbackSignal, Hostname: host1, RolloutID: rollout, Reason: "bad"})
	})
}

// state is the state of a rollout as the control plane would mirror it: all
// stored events, stepped.
func (w *world) mirror(rollout string) lifecycle.Host {
	w.t.Helper()
	w.cp.mu.Lock()
	d := w.cp.documents[wire.Fill(wire.PathManifest, rollout)]
	w.cp.mu.Unlock()
	v, err := trust.Accepted[fleet.Manifest](trust.Entry{Document: d.doc, Signature: d.sig})
	w.must(err)
	h, err := lifecycle.New(host1, rollout, v.Doc(), v.PlanHash(), v.SignedAt())
	w.must(err)
	for _, e := range w.cp.decoded(rollout) {
		if h, err = lifecycle.Step(h, e); err != nil {
			w.t.Errorf("event %d %s of %s: %v", e.Seq, e.Body.Kind(), rollout, err)
		}
	}
	return h
}

// until waits, at most three virtual hours, for a rollout to be in a state.
func (w *world) until(rollout string, s lifecycle.State) lifecycle.Host {
	w.t.Helper()
	var h lifecycle.Host
	w.eventually(fmt.Sprintf("%s is %s", rollout, s), func() bool {
		h = w.mirror(rollout)
		return h.State == s
	})
	return h
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(3 * time.Hour); ; time.Sleep(500 * time.Millisecond) {
		synctest.Wait()
		if is() {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("never: %s\n%s", what, w.logTail())
		}
	}
}

func (w *world) logTail() string {
	lines := strings.Split(w.logged.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

func (w *world) current() fleet.Closure {
	link, err := os.Readlink(filepath.Join(w.machine, "run/current-system"))
	w.must(err)
	return fleet.Closure(filepath.Base(link))
}

func (w *world) bootDefault() fleet.Closure {
	raw, err := os.ReadFile(filepath.Join(w.machine, "boot/default"))
	w.must(err)
	return fleet.Closure(filepath.Base(strings.TrimSpace(string(raw))))
}

// runsAndBoots checks what the machine is.
func (w *world) runsAndBoots(runs, boots fleet.Closure) {
	w.t.Helper()
	if got := w.current(); got != runs {
		w.t.Errorf("runs %s, want %s", got, runs)
	}
	if got := w.bootDefault(); got != boots {
		w.t.Errorf("boots %s, want %s", got, boots)
	}
}

// checkEvidence verifies all records that were stored: rollouts may have been
// sent out of turn.
func (w *world) checkEvidence() {
	w.t.Helper()
	chain := evidence.Chain{Hostname: host1, Key: w.hostPublic(), Records: evidence.InOrder(w.cp.chain)}
	if _, err := evidence.VerifyChain(chain); err != nil {
		w.t.Errorf("evidence: %v", err)
	}
}

// journal reads the journal of a stopped agent.
func (w *world) journal(fn func(*journal.Tx)) {
	w.t.Helper()
	j, err := journal.Open(w.path("state/journal.db"))
	w.must(err)
	defer j.Close()
	w.must(j.View(func(tx *journal.Tx) error { fn(tx); return nil }))
}

func (w *world) logText() string { return w.logged.String() }

func (w *world) hostPublic() ed25519.PublicKey { return w.hostKey.Public().(ed25519.PublicKey) }
