package dirhost

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/durable"
	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// Fetch brings the closure from the first cache that has it, what it refers to
// first. A path is valid once its narinfo stands in the machine's database,
// which is after its files are on disk.
func (m *Machine) Fetch(ctx context.Context, f host.Fetch) error {
	err := m.fetch(ctx, f)
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return &host.FetchError{Kind: kindOf(err), Closure: f.Closure, Detail: host.Tail([]byte(err.Error())), Err: err}
}

func (m *Machine) fetch(ctx context.Context, f host.Fetch) error {
	if len(f.CacheKeys) == 0 {
		return errNoKeys
	}
	keys, err := nix.ParsePublicKeys(f.CacheKeys)
	if err != nil {
		return err
	}
	run := &fetching{m: m, spec: f, keys: keys, seen: make(map[string]bool)}
	for _, address := range f.Caches {
		c, err := nix.NewClient(address, keys, nix.ClientOptions{Dial: m.dial})
		if err != nil {
			return err
		}
		defer c.Close()
		run.caches = append(run.caches, c)
	}
	if err := nix.CheckBase(string(f.Closure)); err != nil {
		return err
	}
	if err := m.root(f); err != nil {
		return err
	}
	return run.path(ctx, string(f.Closure))
}

// root is made first: nothing may be collected between its arrival and its root.
func (m *Machine) root(f host.Fetch) error {
	if f.Rollout == "" || filepath.Base(f.Rollout) != f.Rollout {
		return fmt.Errorf("%q cannot name a GC root", f.Rollout)
	}
	return durable.Symlink("../../../../store/"+string(f.Closure), m.path("nix/var/nix/gcroots/nixfleet/"+f.Rollout))
}

var errNoKeys = errors.New("no cache keys are pinned")

// kindOf says what an error means. The worst of several caches is what it tells:
// one that is down may have had it.
func kindOf(err error) host.FetchKind {
	for _, k := range []struct {
		err  error
		kind host.FetchKind
	}{
		{errNoKeys, host.FetchNoKeys},
		{syscall.ENOSPC, host.FetchNoSpace},
		{syscall.EDQUOT, host.FetchNoSpace},
		{nix.ErrUnavailable, host.FetchCacheDown},
		{nix.ErrCorrupt, host.FetchCorrupt},
		{nix.ErrUnsigned, host.FetchBadSignature},
		{nix.ErrMissing, host.FetchMissing},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return host.FetchOther
}

// fetching is one Fetch under way.
type fetching struct {
	m        *Machine
	spec     host.Fetch
	keys     []nix.PublicKey
	caches   []*nix.Client
	seen     map[string]bool // true when done, false while under way
	progress host.FetchProgress
}

// path makes one path valid, after all that it refers to.
func (f *fetching) path(ctx context.Context, base string) (err error) {
	done, begun := f.seen[base]
	if done {
		return nil
	}
	if begun {
		return fmt.Errorf("%w: %s refers to itself through others", nix.ErrCorrupt, base)
	}
	f.seen[base] = false
	defer func() {
		if err == nil {
			f.seen[base] = true
		} else {
			delete(f.seen, base) // another cache may do better
		}
	}()
	info, err := f.m.valid(base)
	if err != nil {
		return err
	}
	if info != nil && info.Verify(f.keys) && !(f.spec.Repair && f.m.damaged(info)) {
		return f.references(ctx, info)
	}
	return f.substitute(ctx, base)
}

func (f *fetching) references(ctx context.Context, info *nix.NarInfo) error {
	for _, ref := range info.References {
		if ref == info.Base {
			continue
		}
		if err := f.path(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// substitute takes a path from the first cache that can give it.
func (f *fetching) substitute(ctx context.Context, base string) error {
	if len(f.caches) == 0 {
		return fmt.Errorf("%w: no binary cache is configured", nix.ErrMissing)
	}
	var all error
	for _, c := range f.caches {
		err := f.from(ctx, c, base)
		if err == nil {
			return nil
		}
		all = errors.Join(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return all
}

func (f *fetching) from(ctx context.Context, c *nix.Client, base string) error {
	info, err := c.Info(ctx, base)
	if err != nil {
		return err
	}
	if err := f.references(ctx, info); err != nil {
		return err
	}
	if known, err := f.m.valid(base); err == nil && known != nil && known.NarHash == info.NarHash && !f.m.damaged(known) {
		return durable.WriteFile(f.m.registration(base), info.Format(), 0o644) // only the signature was missing
	}
	dir, err := os.MkdirTemp(f.m.path("nix/store"), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // empty by then, or of no use
	if err := c.Fetch(ctx, info, filepath.Join(dir, base)); err != nil {
		return err
	}
	if err := f.m.register(info, filepath.Join(dir, base)); err != nil {
		return fmt.Errorf("register %s: %w", base, err)
	}
	f.progress.Paths++
	f.progress.Bytes += info.NarSize
	if f.spec.Progress != nil {
		f.spec.Progress(f.progress)
	}
	return nil
}

// valid returns what the machine knows about a path, nil when it is not valid. A
// folder in the store proves nothing.
func (m *Machine) valid(base string) (*nix.NarInfo, error) {
	text, err := os.ReadFile(m.registration(base))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := nix.ParseNarInfo(text)
	if err != nil {
		return nil, nil // cut off by a power cut: then it is not registered
	}
	return info, nil
}

func (m *Machine) registration(base string) string {
	return m.path("nix/var/nix/db/" + base + ".narinfo")
}

// damaged tells whether a valid path's files are not what was fetched.
func (m *Machine) damaged(info *nix.NarInfo) bool {
	sum := sha256.New()
	err := nix.Pack(sum, m.Path(fleet.Closure(info.Base)))
	return err != nil || nix.Hash(sum.Sum(nil)) != info.NarHash
}

// register moves a path that is on disk into the store, and says that it is
// valid only then.
func (m *Machine) register(info *nix.NarInfo, unpacked string) error {
	dest := m.Path(fleet.Closure(info.Base))
	registration := m.registration(info.Base)
	if err := os.Remove(registration); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	if err := os.Rename(unpacked, dest); err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(dest)); err != nil {
		return err
	}
	return durable.WriteFile(registration, info.Format(), 0o644)
}
