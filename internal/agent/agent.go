// Package agent is the daemon on each host: the only thing that ever changes the
// machine.
//
// It promises that whatever stops it, at any instant, its next start goes on from
// what was committed; that an event is on disk before it is acted upon, and
// leaves the disk only when the control plane has stored it; and that it takes
// targets only from documents that package trust has verified.
//
// One goroutine, the reducer, owns all state of rollouts. Everything else tells
// it inputs over one bounded channel; it steps the state machine, commits state
// and events in one transaction, and publishes the new state. The applier compares
// what the state wants with what is under way, and starts or stops workers. So
// there are no effects that a crash could lose: what was interrupted is still
// wanted. Nothing that the reducer waits for waits for the reducer.
//
// It needs a Machine, a way to connect, a state directory that survives reboots,
// and the host's SSH key. It has no globals: many agents can live in one process.
// It never decides what a state means (package lifecycle does), nor how a machine
// is changed (package activation does).
package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/agent/probe"
	"nixfleet/internal/agent/uplink"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// Agent is one host's daemon.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	machine host.Machine
	key     ed25519.PrivateKey
	clock   func() ClockState
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	spread  float64 // where in a span of time in which all hosts act this one does

	uplink    *uplink.Client
	rootsFile chan *trust.RootsFile // of size one: who reads it has taken it

	// Set by Run.
	started time.Time
	journal *journal.Journal
	reducer *reducer
	atStart *atStart // until the observer has told what was found

	enrolled    latch               // open once there is a certificate
	revoked     chan struct{}       // of size one: the control plane says so of the certificate
	machineTurn chan struct{}       // of size one: held by the step that changes the machine
	guardTurn   chan struct{}       // of size one: held by who writes the lease
	served      chan wire.Documents // of size one: what the control plane last said that it serves
	ahead       chan string         // of size one: the newest rollout that the control plane has for this host
	pollNow     *broadcast          // somebody wants to hear from the control plane now
	waits       waits
	panics      atomic.Int64
	skewed      atomic.Bool // the clock is far from the control plane's
	refused     atomic.Pointer[refusal]
	progress    atomic.Pointer[host.FetchProgress]
	fetched     atomic.Int64              // bytes, of all fetches
	staleAt     atomic.Pointer[time.Time] // when the newest manifest that was seen is too old
	scheduler   atomic.Pointer[probe.Scheduler]
}

// New makes an agent. It reads the host's key and the trust roots, without which
// there is no point in starting, and touches nothing else. dial may be nil.
func New(cfg Config, m host.Machine, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*Agent, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Notify == nil {
		cfg.Notify = func(string) {}
	}
	if len(cfg.Guard) == 0 {
		return nil, errors.New("no command that guards the agent")
	}
	key, err := identity.LoadHostKey(cfg.SSHHostKeyFile)
	if err != nil {
		return nil, err
	}
	file := &trust.RootsFile{Path: cfg.TrustFile}
	roots, err := file.Read()
	if err != nil {
		return nil, err
	}
	for _, warning := range roots.Warnings {
		cfg.Log.Warn("trust roots", "file", cfg.TrustFile, "warning", warning)
	}
	a := &Agent{
		cfg:     cfg,
		log:     cfg.Log,
		machine: m,
		key:     key,
		clock:   cfg.Clock,
		dial:    dial,
		spread:  newSpread(),
		uplink: uplink.New(uplink.Config{
			URL:          cfg.ControlPlane,
			CACertFile:   cfg.CACertFile,
			CertFile:     cfg.ClientCertFile,
			KeyFile:      cfg.ClientKeyFile,
			AgentVersion: cfg.Version,
			Dial:         dial,
		}),
		rootsFile:   make(chan *trust.RootsFile, 1),
		enrolled:    newLatch(),
		revoked:     make(chan struct{}, 1),
		machineTurn: make(chan struct{}, 1),
		guardTurn:   make(chan struct{}, 1),
		served:      make(chan wire.Documents, 1),
		ahead:       make(chan string, 1),
		pollNow:     newBroadcast(),
	}
	if a.clock == nil {
		a.clock = KernelClock
	}
	a.rootsFile <- file
	return a, nil
}

// Run runs the agent until ctx ends, and returns when all that it started has
// ended. Units that it started on the machine run on.
func (a *Agent) Run(ctx context.Context) error {
	a.started = time.Now()
	if err := os.MkdirAll(a.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	a.checkPrivate()
	release, err := a.machine.BeAgent(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer release()
	if err := a.openJournal(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer a.journal.Close()
	defer a.uplink.Close()
	listeners, err := a.listen()
	if err != nil {
		return err
	}
	// Here and not later: a switch that replaces the agent waits for its start, and
	// everything that follows may wait for that switch.
	a.cfg.Notify("READY=1")
	a.log.Info("started", "version", a.cfg.Version, "machine", a.cfg.MachineID, "controlPlane", a.cfg.ControlPlane.String())

	// Before the machine is looked at: what the guard did is no drift.
	if err := a.awaitGuard(ctx); err != nil {
		return err
	}
	before := a.reducer.view()
	acted, err := a.reducer.tellGuardActed(a.guardFiles())
	if err != nil {
		return err
	}
	a.atStart = &atStart{before: before, guardActed: acted}
	go a.reducer.run()
	var workers sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		workers.Go(func() { a.supervise(ctx, name, run) })
	}
	start("observer", a.observe)
	start("applier", a.apply)
	start("certificate", a.certify)
	for _, w := range []struct {
		name string
		run  func(context.Context) error
	}{{"heartbeat", a.beat}, {"orders", a.pollOrders}, {"outbox", a.sendEvents}, {"documents", a.refresh}, {"prefetch", a.prefetch}} {
		start(w.name, func(ctx context.Context) error {
			if a.enrolled.wait(ctx) != nil {
				return nil
			}
			return w.run(ctx)
		})
	}
	start("watchdog", a.watchdog)
	for _, l := range listeners {
		start("socket", func(ctx context.Context) error { return a.serve(ctx, l) })
	}

	<-ctx.Done()
	a.cfg.Notify("STOPPING=1")
	workers.Wait()
	close(a.reducer.stop)
	<-a.reducer.stopped
	a.log.Info("stopped")
	return nil
}

// checkPrivate warns about secrets that others can reach. That alone is no reason
// to leave a machine without its agent.
func (a *Agent) checkPrivate() {
	secrets := []struct{ what, path string }{
		{"the SSH host key", a.cfg.SSHHostKeyFile},
		{"the bootstrap token", a.cfg.BootstrapTokenFile},
		{"the state directory", a.cfg.StateDir},
	}
	if a.cfg.ClientKeyFile != a.cfg.SSHHostKeyFile {
		secrets = append(secrets, struct{ what, path string }{"the client key", a.cfg.ClientKeyFile})
	}
	for _, s := range secrets {
		if s.path == "" {
			continue
		}
		if err := identity.CheckPrivate(s.path); err != nil {
			a.log.Warn("a secret is not private", "what", s.what, "err", err)
		}
	}
}

// openJournal opens the journal and the marks beside it. A journal that is
// damaged is moved aside: the machine and the marks say what is needed most.
func (a *Agent) openJournal(ctx context.Context) error {
	path := a.cfg.journalFile()
	check := a.cfg.CheckJournal
	if check == nil {
		check = func(_ context.Context, path string) error { return journal.Check(path) }
	}
	fresh := !exists(path)
	lost := ""
	err := check(ctx, path)
	if err == nil {
		a.journal, err = journal.Open(path)
	}
	if errors.Is(err, journal.ErrLocked) || errors.Is(err, context.Canceled) || err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		aside, moveErr := journal.MoveAside(path, time.Now())
		if moveErr != nil {
			return errors.Join(err, moveErr)
		}
		a.log.Error("the journal is damaged and was moved aside", "file", aside, "err", err)
		lost = fmt.Sprintf("the journal was damaged and is now %s: %v", filepath.Base(aside), err)
		if a.journal, err = journal.Open(path); err != nil {
			return err
		}
	}
	state, err := load(a.journal, time.Now())
	if err != nil {
		return errors.Join(err, a.journal.Close())
	}
	a.reducer = newReducer(a.cfg, a.key, a.journal, state)
	if err := a.reducer.remember(fresh, lost); err != nil {
		return errors.Join(err, a.journal.Close())
	}
	return nil
}

// remember joins the marks of the journal with those of the file, and notes what
// was lost.
func (r *reducer) remember(fresh bool, lost string) error {
	file, err := trust.LoadMarks(r.cfg.MarksFile())
	known := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Error("the marks beside the journal cannot be read", "err", err)
	}
	t := r.begin()
	before := r.state.self.Marks
	merged := before.Higher(file)
	merged.ChainHead, merged.ChainLength = before.ChainHead, before.ChainLength // of this journal's chain
	if !reflect.DeepEqual(merged, before) {
		t.updateMarks(func(m *trust.Marks) { *m = merged })
	}
	if known && fresh && lost == "" && file.ChainLength > 0 {
		lost = "there was no journal"
	}
	if lost != "" {
		if err := t.notice(lifecycle.Notice{Code: lifecycle.NoticeChainReset, Detail: "a new chain of records begins", PreviousHead: file.ChainHead}); err != nil {
			return err
		}
		if err := t.notice(lifecycle.Notice{Code: lifecycle.NoticeJournalLost, Detail: lost}); err != nil {
			return err
		}
		if !known {
			if err := t.notice(lifecycle.Notice{Code: lifecycle.NoticeTrustReset, Detail: "the marks of accepted documents were lost as well"}); err != nil {
				return err
			}
		}
	}
	return r.commit(t)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// supervise runs a worker until it returns or ctx ends. One that fails or panics
// is started again: it is counted and logged, and stops nothing else.
func (a *Agent) supervise(ctx context.Context, name string, run func(context.Context) error) {
	var backoff uplink.Backoff
	for {
		err := a.guarded(ctx, name, run)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Error("a worker failed and is started again", "worker", name, "err", err)
		if !sleep(ctx, backoff.Next(nil)) {
			return
		}
	}
}

func (a *Agent) guarded(ctx context.Context, name string, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.panics.Add(1)
			err = fmt.Errorf("panic: %v", p)
			a.log.Error("panic", "worker", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	return run(ctx)
}

// watchdog tells the service manager that the agent lives, as long as its reducer
// answers.
func (a *Agent) watchdog(ctx context.Context) error {
	if a.cfg.Watchdog <= 0 {
		return nil
	}
	for {
		if a.reducer.submit(ctx, "watchdog", func(*turn) error { return nil }) == nil {
			a.cfg.Notify("WATCHDOG=1")
		}
		if !sleep(ctx, a.cfg.Watchdog/3) {
			return nil
		}
	}
}

// uplinkTrouble notes that the control plane was not reached, or does not want
// this host, and logs it the first time.
func (a *Agent) uplinkTrouble(worker string, err error) {
	var answer *wire.Error
	level := slog.LevelInfo // a control plane that is away is not this host's fault
	if errors.As(err, &answer) && !answer.Temporary() {
		level = slog.LevelWarn
		if answer.Slug == wire.SlugRevoked {
			select {
			case a.revoked <- struct{}{}:
			default: // it was said
			}
		}
	}
	if errors.Is(err, context.Canceled) || !a.waits.set(worker, wire.WaitingOnControlPlane, err.Error()) {
		level = slog.LevelDebug
	}
	a.log.Log(context.Background(), level, "no success at the control plane", "worker", worker, "err", err)
}

// uplinkWell notes that it was reached again.
func (a *Agent) uplinkWell(worker string) {
	if a.waits.clear(worker) {
		a.log.Info("the control plane answers again", "worker", worker)
	}
}
