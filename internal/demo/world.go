package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	url          string    // of the control plane
	claim        io.Closer // on its port
	agents       map[string]*daemon
	operator     *operator.Client
	nonces       []fleet.Nonce
	releases     int       // made so far
	newest       string    // rollout of the owner's last one
	firstFleet   signedDoc // of the first one
	tampered     string    // rollout whose manifest the attacker changed
	forged       string    // rollouts of the attacker's
	smuggled     string
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
		for _, port := range m.taken {
			port.Close()
		}
	}
	if w.lock != nil {
		w.lock.Close()
	}
	w.supervisor.wait.Wait()
	if w.claim != nil {
		w.claim.Close()
	}
}

// makeKeys makes the owner's folder, as nixfleet init does.
func (w *world) makeKeys() error {
	claim, port, err := claimPort()
	if err != nil {
		return err
	}
	w.claim, w.url = claim, fmt.Sprintf("https://127.0.0.1:%d", port)
	if w.keys, err = fleetdir.Create(w.in("fleet"), fleetdir.Options{Names: []string{"127.0.0.1"}, URL: w.url, Operator: "demo", Now: time.Now()}); err != nil {
		return err
	}
	if w.orgRoot, err = loadSigner(w.keys.OrgRootKey()); err != nil {
		return err
	}
	if w.publisher, err = publisherOf(w.keys); err != nil {
		return err
	}
	return os.MkdirAll(w.keys.Release(), 0o755)
}

// publisherOf signs with the release key of an owner's folder.
func publisherOf(keys fleetdir.Folder) (release.Publisher, error) {
	ci, err := loadSigner(keys.CIKey())
	if err != nil {
		return release.Publisher{}, err
	}
	roots, err := trust.LoadRoots(keys.Trust())
	if err != nil {
		return release.Publisher{}, err
	}
	return release.Publisher{Folder: keys.Release(), Signer: release.KeySigner{Signer: ci}, Slot: roots.CIReleaseKey, Algorithm: ci.Public().Algorithm}, nil
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
	var err error
	if w.cache, w.cacheKey, err = cacheOf(w.keys, w.in("cache")); err != nil {
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

// cacheOf is a cache in dir that is signed with the key of an owner's folder, and
// the public key.
func cacheOf(keys fleetdir.Folder, dir string) (cache *nix.CacheDir, public string, err error) {
	text, err := os.ReadFile(keys.CacheKey())
	if err != nil {
		return nil, "", err
	}
	key, err := nix.ParseSecretKey(string(text))
	if err != nil {
		return nil, "", err
	}
	cache, err = nix.CreateCacheDir(dir, key, "zstd")
	return cache, key.Public().String(), err
}

// routes are those of a network that works.
func (w *world) routes() routes {
	return routes{toControlPlane: strings.TrimPrefix(w.url, "https://"), toCache: strings.TrimPrefix(w.cacheURL, "http://")}
}

// makeMachine makes a machine with a first system and a bootstrap token for it.
func (w *world) makeMachine(ctx context.Context, name string) error {
	roots, err := os.ReadFile(w.keys.Trust())
	if err != nil {
		return err
	}
	m, err := newMachine(w.in("hosts", name), name, roots, w.in("lock"), w.programs.Nixfleet)
	if err != nil {
		return err
	}
	first, err := addSystem(w.cache, w.folder, system{name, "0", w.routes()}, serving(http.StatusOK, 0))
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
