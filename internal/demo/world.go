package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/nix"
	"nixfleet/internal/operator"
	"nixfleet/internal/release"
	"nixfleet/internal/rollout"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// channel is the demo's only one.
const channel = "demo"

// world is a running demo: a fleet's folder, a binary cache, a control plane and
// machines with their agents.
type world struct {
	folder   string
	programs Programs
	say      func(Progress)

	keys       fleetdir.Folder
	publisher  release.Publisher
	orgRoot    trust.Signer
	cache      *nix.CacheDir
	cacheKey   string // public
	cacheURL   string
	lock       *os.File
	machines   []*machine // the canary is the first
	supervisor *supervisor

	controlPlane *daemon
	url          string // of the control plane
	agents       map[string]*daemon
	operator     *operator.Client
	nonces       []fleet.Nonce
	releases     int                        // made so far
	told         map[string]lifecycle.State // by rollout and host: what was last said
}

func (w *world) in(parts ...string) string {
	return filepath.Join(append([]string{w.folder}, parts...)...)
}

// build makes everything up to the moment at which the agents start.
func (w *world) build(ctx context.Context, hosts int) error {
	var err error
	if w.lock, err = takeLock(w.in("lock")); err != nil {
		return err
	}
	if err := w.makeKeys(); err != nil {
		return err
	}
	if err := w.startCache(ctx); err != nil {
		return err
	}
	for i := range hosts {
		if err := w.makeMachine(ctx, "host-"+strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	return w.startControlPlane(ctx)
}

// close ends what is this process's own.
func (w *world) close() {
	if w.operator != nil {
		w.operator.Close()
	}
	for _, m := range w.machines {
		m.taken.Close()
	}
	if w.lock != nil {
		w.lock.Close()
	}
	w.supervisor.wait.Wait()
}

// startControlPlane starts the control plane and waits until it answers.
func (w *world) startControlPlane(ctx context.Context) error {
	w.controlPlane = w.supervisor.run("control-plane", w.in("control-plane.log"),
		w.programs.ControlPlane,
		"--listen="+strings.TrimPrefix(w.url, "https://"),
		"--tls-cert="+w.keys.ServerCert(),
		"--tls-key="+w.keys.ServerKey(),
		"--client-ca="+w.keys.CACert(),
		"--ca-cert="+w.keys.CACert(),
		"--ca-key="+w.keys.CAKey(),
		"--trust-file="+w.keys.Trust(),
		"--release-source="+w.keys.Release(),
		"--source-interval=200ms",
		"--heartbeat="+heartbeat.String(),
		"--db=sqlite:"+w.in("state.db"),
		"--log-format=json",
	)
	var err error
	w.operator, err = operator.New(operator.Config{URL: w.url, CACert: w.keys.CACert(), ClientCert: w.keys.OperatorCert(), ClientKey: w.keys.OperatorKey()})
	if err != nil {
		return err
	}
	up := false
	err = w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
		_, err := operator.Get[wire.Whoami](ctx, w.operator, wire.PathWhoami)
		up = err == nil
		return up, err
	})
	if err == nil && !up {
		err = fmt.Errorf("the control plane does not answer; it said:\n%s", tail(w.controlPlane.log))
	}
	return err
}

// makeKeys makes the owner's folder, as nixfleet init does.
func (w *world) makeKeys() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	w.url = "https://" + address
	if w.keys, err = fleetdir.Create(w.in("fleet"), fleetdir.Options{Names: []string{"127.0.0.1"}, URL: w.url, Operator: "demo", Now: time.Now()}); err != nil {
		return err
	}
	ci, err := loadSigner(w.keys.CIKey())
	if err != nil {
		return err
	}
	if w.orgRoot, err = loadSigner(w.keys.OrgRootKey()); err != nil {
		return err
	}
	roots, err := trust.LoadRoots(w.keys.Trust())
	if err != nil {
		return err
	}
	w.publisher = release.Publisher{Folder: w.keys.Release(), Signer: release.KeySigner{Signer: ci}, Slot: roots.CIReleaseKey, Algorithm: ci.Public().Algorithm}
	return os.MkdirAll(w.keys.Release(), 0o755)
}

func loadSigner(path string) (trust.Signer, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return trust.LoadSigner(content)
}

// startCache serves an empty binary cache from this process.
func (w *world) startCache(ctx context.Context) error {
	text, err := os.ReadFile(w.keys.CacheKey())
	if err != nil {
		return err
	}
	key, err := nix.ParseSecretKey(string(text))
	if err != nil {
		return err
	}
	w.cacheKey = key.Public().String()
	if w.cache, err = nix.CreateCacheDir(w.in("cache"), key, "zstd"); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.cacheURL = "http://" + listener.Addr().String()
	server := &http.Server{Handler: http.FileServer(http.Dir(w.in("cache"))), ReadHeaderTimeout: 5 * time.Second}
	w.supervisor.wait.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			w.supervisor.cancel(fmt.Errorf("the binary cache: %w", err))
		}
	})
	context.AfterFunc(ctx, func() { server.Close() })
	return nil
}

// makeMachine makes a machine with a first system and a bootstrap token for it.
func (w *world) makeMachine(ctx context.Context, name string) error {
	roots, err := os.ReadFile(w.keys.Trust())
	if err != nil {
		return err
	}
	m, err := newMachine(w.in("hosts", name), name, roots, Service{Lock: w.in("lock")}, w.programs.Nixfleet)
	if err != nil {
		return err
	}
	first, err := addSystem(w.cache, w.folder, name, "0", serving(http.StatusOK, 0))
	if err != nil {
		return err
	}
	if err := m.install(ctx, first, w.cacheURL, w.cacheKey); err != nil {
		return err
	}
	now := time.Now()
	claims := identity.Claims{
		Hostname:                  name,
		ExpectedPubkeyFingerprint: identity.Fingerprint(m.key),
		IssuedAt:                  now,
		ExpiresAt:                 now.Add(time.Hour),
		Nonce:                     identity.NewNonce(),
	}
	token, err := identity.MintToken(claims, w.orgRoot)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.in(tokenFile), token, 0o600); err != nil {
		return err
	}
	w.nonces = append(w.nonces, fleet.Nonce{Nonce: claims.Nonce, Hostname: name, ExpiresAt: claims.ExpiresAt.UTC().Truncate(time.Second)})
	w.machines = append(w.machines, m)
	return nil
}

// startAgents starts every agent for the first time, once the control plane has
// the release, and with it the list of allowed tokens.
func (w *world) startAgents(ctx context.Context, id string) error {
	err := w.until(ctx, settleLimit, func(ctx context.Context) (bool, error) {
		_, err := operator.Get[wire.RolloutLifecycle](ctx, w.operator, wire.Fill(wire.PathRolloutLifecycle, id))
		return err == nil, err
	})
	if err != nil {
		return err
	}
	w.agents = map[string]*daemon{}
	for _, m := range w.machines {
		argv := []string{
			w.programs.Agent,
			"--control-plane-url=" + w.url,
			"--machine-id=" + m.name,
			"--poll-interval=" + heartbeat.String(),
			"--trust-file=" + m.in(trustFile),
			"--ca-cert=" + w.keys.CACert(),
			"--bootstrap-token-file=" + m.in(tokenFile),
			"--state-dir=" + m.in(stateDir),
			"--ssh-host-key-file=" + m.in(hostKeyFile),
			"--health-checks-config=" + m.in(healthChecksFile),
			"--clock-policy=trust",
			"--min-free-nix=1MiB",
			"--min-free-boot=1MiB",
			"--cache-url=" + w.cacheURL,
			"--log-format=json",
			"--host-backend=dirhost:" + m.root,
		}
		// The address of a Unix socket is short; a deep folder has no room for one.
		if socket := m.in(socketFile); len(socket) <= 100 {
			argv = append(argv, "--socket="+socket)
		} else {
			argv = append(argv, "--socket=")
		}
		w.agents[m.name] = w.supervisor.run(m.name, m.in(agentLog), argv...)
	}
	return nil
}

// declare is the fleet document with the systems of a release.
func (w *world) declare(policy string, closures map[string]fleet.Closure, soak int) *fleet.Fleet {
	limits := fleet.DefaultPolicy()
	limits.HealthFailureSecs = healthFailureSecs
	limits.ConfirmWindowSecs = confirmWindowSecs
	limits.Guard = fleet.GuardOptional // the machines' systems are two files, without an agent in them
	everybody := fleet.PolicyWave{Selector: fleet.Selector{All: true}, SoakSecs: &soak}
	canaries := fleet.PolicyWave{Selector: fleet.Selector{Tags: []string{"canary"}}, SoakSecs: &soak}
	f := &fleet.Fleet{
		SchemaVersion: fleet.SchemaVersion,
		Hosts:         map[string]fleet.Host{},
		Channels: map[string]fleet.Channel{channel: {
			RolloutPolicy: policy, ReconcileIntervalMinutes: 30, FreshnessWindow: 24 * 60, SigningIntervalMinutes: 60,
			Compliance: fleet.Compliance{Frameworks: []string{}, Mode: "disabled"},
		}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{
			allAtOnce:   {Strategy: "all-at-once", Waves: []fleet.PolicyWave{everybody}, Policy: limits},
			canaryFirst: {Strategy: "canary", Waves: []fleet.PolicyWave{canaries, everybody}, Policy: limits},
		},
		Meta: fleet.Meta{SchemaVersion: fleet.SchemaVersion},
	}
	for i, m := range w.machines {
		closure, pubkey := closures[m.name], m.pubkeyLine()
		h := fleet.Host{System: hostSystem, Channel: channel, ClosureHash: &closure, Pubkey: &pubkey, Tags: []string{}}
		if i == 0 {
			h.Tags = append(h.Tags, "canary")
		}
		f.Hosts[m.name] = h
	}
	return f
}

// publish builds a release's systems, signs its documents and publishes them. It
// returns the rollout's id.
func (w *world) publish(ctx context.Context, spec releaseSpec) (string, error) {
	w.releases++
	closures := map[string]fleet.Closure{}
	for _, m := range w.machines {
		c, err := addSystem(w.cache, w.folder, m.name, strconv.Itoa(w.releases), spec.build)
		if err != nil {
			return "", err
		}
		closures[m.name] = c
	}
	doc, err := json.Marshal(w.declare(spec.policy, closures, spec.soakSecs))
	if err != nil {
		return "", err
	}
	nonces, err := json.Marshal(fleet.Nonces{SchemaVersion: fleet.SchemaVersion, Nonces: w.nonces})
	if err != nil {
		return "", err
	}
	result, err := w.publisher.Release(ctx, release.Request{Fleet: doc, Nonces: nonces, Now: time.Now()})
	if err != nil {
		return "", fmt.Errorf("release %d: %w", w.releases, err)
	}
	return result.Rollouts[0].ID, nil
}

// settled waits until nothing more will happen in a rollout by itself. That this
// did not come in time is for the act to find out.
func (w *world) settled(ctx context.Context, id string) error {
	return w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
		r, err := operator.Get[wire.RolloutLifecycle](ctx, w.operator, wire.Fill(wire.PathRolloutLifecycle, id))
		if err != nil {
			return false, err
		}
		rows, err := w.watch(ctx, id)
		return settled(r.State, rows), err
	})
}

// settled tells whether a rollout and its hosts are in states that stay.
func settled(state string, rows []wire.RolloutHost) bool {
	switch rollout.State(state) {
	case rollout.Terminal, rollout.Reverted, rollout.Superseded:
		return true
	case rollout.Failed: // stays so when nobody has to go back
		return !slices.ContainsFunc(rows, func(row wire.RolloutHost) bool {
			return row.State == lifecycle.Activating || row.State == lifecycle.Soaking || row.Failure != nil && row.Failure.RollbackOwed
		})
	}
	return false
}

// until asks again and again until the answer is yes, the control plane being
// away or not having seen the release being no answer. Running out of time is no
// error: what is there then is what counts.
func (w *world) until(ctx context.Context, limit time.Duration, ask func(context.Context) (bool, error)) error {
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := ask(timed)
		var unreachable *operator.Unreachable
		var refused *wire.Error
		switch {
		case err == nil && yes:
			return nil
		case err == nil, errors.As(err, &unreachable), errors.As(err, &refused), errors.Is(err, context.DeadlineExceeded):
		default:
			return err
		}
		select {
		case <-tick.C:
		case <-timed.Done():
			return context.Cause(ctx) // nil when only the time is over
		}
	}
}

// watch returns a rollout's hosts, and reports what has changed about them since
// it was last asked.
func (w *world) watch(ctx context.Context, id string) ([]wire.RolloutHost, error) {
	rows, err := operator.List[wire.RolloutHost](ctx, w.operator, wire.Fill(wire.PathRolloutHosts, id), "")
	for _, row := range rows {
		if key := id + "/" + row.Hostname; w.told[key] != row.State {
			w.told[key] = row.State
			if row.State != lifecycle.Pending {
				w.say(Progress{Kind: HostChanged, Text: row.Hostname, State: row.State})
			}
		}
	}
	return rows, err
}
