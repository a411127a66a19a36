package nixos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/nix"
)

// Fetch realises the closure with Nix, under our keys only, and holds it with a
// direct GC root. It counts when Nix calls it valid, a signature of ours is on
// record, and the store's file system is synced.
func (m *Machine) Fetch(ctx context.Context, f host.Fetch) error {
	heard := new(hearing)
	err := m.fetch(ctx, f, heard)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		return err
	}
	failed := &host.FetchError{Kind: heard.kind(), Closure: f.Closure, Err: err}
	var cmd *commandError
	switch {
	case errors.Is(err, errNoKeys):
		failed.Kind = host.FetchNoKeys
	case errors.Is(err, errUnsigned):
		failed.Kind = host.FetchBadSignature
	case errors.Is(err, context.DeadlineExceeded):
		failed.Kind = host.FetchCacheDown
	case errors.As(err, &cmd):
		failed.Detail, failed.Err = cmd.tail, cmd.err
	}
	return failed
}

var (
	errNoKeys   = errors.New("no cache keys are pinned")
	errUnsigned = errors.New("it is in the store, but not signed by any of the pinned cache keys (nix store sign or nix store copy-sigs adds a signature)")
)

func (m *Machine) fetch(ctx context.Context, f host.Fetch, heard *hearing) error {
	if err := nix.CheckBase(string(f.Closure)); err != nil {
		return err
	}
	if f.Rollout == "" || filepath.Base(f.Rollout) != f.Rollout {
		return fmt.Errorf("%q cannot name a GC root", f.Rollout)
	}
	if len(f.CacheKeys) == 0 {
		return errNoKeys
	}
	keys, err := nix.ParsePublicKeys(f.CacheKeys)
	if err != nil {
		return err
	}
	caches, err := m.caches(ctx, f)
	if err != nil {
		return err
	}
	options := fetchOptions(caches, f.CacheKeys)
	progress := host.FetchProgress{}
	hear := func(line string) {
		heard.line(line)
		if f.Progress != nil && strings.HasPrefix(line, "copying path ") {
			progress.Paths++
			f.Progress(progress)
		}
	}
	if err := os.MkdirAll(m.root+rootsDir, 0o755); err != nil {
		return fmt.Errorf("make the folder of GC roots: %w", err)
	}
	args := append([]string{"--realise", f.Closure.Path(), "--add-root", m.root + rootsDir + "/" + f.Rollout}, options...)
	if _, err := m.run(ctx, command{name: "nix-store", args: args, line: hear}); err != nil {
		return err
	}
	if f.Repair {
		if err := m.repair(ctx, f, options, hear); err != nil {
			return err
		}
	}
	if err := m.checkSigned(ctx, f, keys, caches); err != nil {
		return err
	}
	// The options sync what Nix wrote now, on versions that know them; what was
	// valid before may have been written by anybody.
	if err := syncFS(m.root + nix.StoreDir); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	return nil
}

// fetchOptions make Nix believe our keys only, give up in time, look again for
// what was missing a moment ago, and write before it registers.
func fetchOptions(caches, keys []string) (args []string) {
	for _, o := range [][2]string{
		{"require-sigs", "true"},
		{"trusted-public-keys", strings.Join(keys, " ")},
		{"substituters", strings.Join(caches, " ")},
		{"substitute", "true"},
		{"narinfo-cache-negative-ttl", "0"},
		{"connect-timeout", "10"},
		{"stalled-download-timeout", "60"},
		{"download-attempts", "3"},
		{"sync-before-registering", "true"},
	} {
		args = append(args, "--option", o[0], o[1])
	}
	return args
}

// caches are those asked for, else those of the machine's settings. An address
// that turns signatures off is refused in the one, and left out of the other.
func (m *Machine) caches(ctx context.Context, f host.Fetch) ([]string, error) {
	for _, address := range f.Caches {
		if nix.WithoutSignatures(address) {
			return nil, fmt.Errorf("cache %s: trusted would turn signatures off", address)
		}
	}
	if len(f.Caches) > 0 {
		return f.Caches, nil
	}
	configured, err := m.NixSettings(ctx)
	if err != nil {
		return nil, fmt.Errorf("read Nix's settings: %w", err)
	}
	var caches []string
	for _, address := range configured.Substituters {
		if !nix.WithoutSignatures(address) {
			caches = append(caches, address)
		}
	}
	return caches, nil
}

// NixSettings asks Nix; the name of the question depends on its age.
func (m *Machine) NixSettings(ctx context.Context) (host.NixSettings, error) {
	output, err := m.run(ctx, nixCommand("config", "show", "--json"))
	if err != nil && ctx.Err() == nil {
		output, err = m.run(ctx, nixCommand("show-config", "--json"))
	}
	if err != nil {
		return host.NixSettings{}, err
	}
	var settings struct {
		Substituters struct {
			Value []string `json:"value"`
		} `json:"substituters"`
		RequireSigs struct {
			Value *bool `json:"value"`
		} `json:"require-sigs"`
	}
	if err := json.Unmarshal(output, &settings); err != nil {
		return host.NixSettings{}, err
	}
	if settings.RequireSigs.Value == nil {
		return host.NixSettings{}, errors.New("no word on whether signatures are required")
	}
	return host.NixSettings{Substituters: settings.Substituters.Value, RequireSigs: *settings.RequireSigs.Value}, nil
}

func nixCommand(args ...string) command {
	return command{name: "nix", args: append([]string{"--extra-experimental-features", "nix-command"}, args...)}
}

// checkSigned wants a signature of ours on record: Nix asks for one only when it
// imports, not for what was there. One that a cache has is fetched; Nix takes it
// only when it is over the same contents.
func (m *Machine) checkSigned(ctx context.Context, f host.Fetch, keys []nix.PublicKey, caches []string) error {
	signed, err := m.signed(ctx, f, keys)
	if signed || err != nil {
		return err
	}
	for _, cache := range caches {
		_, copyErr := m.run(ctx, nixCommand("store", "copy-sigs", "--substituter", cache, "--option", "narinfo-cache-negative-ttl", "0", f.Closure.Path()))
		if ctx.Err() != nil {
			return copyErr
		}
		// Whether it helped is asked of the store.
		if signed, err := m.signed(ctx, f, keys); signed || err != nil {
			return err
		}
	}
	return errUnsigned
}

func (m *Machine) signed(ctx context.Context, f host.Fetch, keys []nix.PublicKey) (bool, error) {
	output, err := m.run(ctx, nixCommand("path-info", "--json", "--sigs", f.Closure.Path()))
	if err != nil {
		return false, err
	}
	info, err := parsePathInfo(output, string(f.Closure))
	if err != nil {
		return false, err
	}
	return info.Verify(keys), nil
}

// repair reads a closure that is valid, and fetches again what of it is not what
// it should be: after a power cut, valid paths with empty files. Only bad
// paths are repaired, because each is missing for a moment meanwhile.
func (m *Machine) repair(ctx context.Context, f host.Fetch, options []string, hear func(string)) error {
	output, err := m.run(ctx, command{name: "nix-store", args: []string{"--query", "--requisites", f.Closure.Path()}})
	if err != nil {
		return err
	}
	paths := strings.Fields(string(output))
	if good, err := m.verify(ctx, paths...); good || err != nil {
		return err
	}
	for _, path := range paths {
		good, err := m.verify(ctx, path)
		if err != nil {
			return err
		}
		if good {
			continue
		}
		if _, err := m.run(ctx, command{name: "nix-store", args: append([]string{"--repair-path", path}, options...), line: hear}); err != nil {
			return err
		}
	}
	return nil
}

// verify tells whether the contents of paths are what they should be.
func (m *Machine) verify(ctx context.Context, paths ...string) (bool, error) {
	_, err := m.run(ctx, command{name: "nix-store", args: append([]string{"--verify-path"}, paths...)})
	var failed *commandError
	if errors.As(err, &failed) {
		return false, nil
	}
	return err == nil, err
}
