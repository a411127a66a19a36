package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/nix"
	"nixfleet/internal/operator"
	"nixfleet/internal/release"
	"nixfleet/internal/trust"
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
