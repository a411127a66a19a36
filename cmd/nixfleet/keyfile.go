package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
)

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// readKeyFile reads a file that a flag names. Everything that is wrong with it is
// wrong use.
func readKeyFile(flag, path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, wrongUse("%s %s: no such file", flag, path)
	}
	if err != nil {
		return nil, wrongUse("%s: %w", flag, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, wrongUse("%s %s: it is a folder; name the file in it", flag, path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, wrongUse("%s: %w", flag, err)
	case len(content) > maxKeyFile:
		return nil, wrongUse("%s %s: it is too large to be a key", flag, path)
	}
	return content, nil
}

// loadSigner reads a private key file.
func loadSigner(flag, path string) (trust.Signer, error) {
	content, err := readKeyFile(flag, path)
	if err != nil {
		return nil, err
	}
	signer, err := trust.LoadSigner(content)
	if err != nil {
		return nil, wrongUse("%s %s: %w", flag, path, err)
	}
	return signer, nil
}

// loadHostKey reads the public key file of a host.
func loadHostKey(flag, path string) (ed25519.PublicKey, error) {
	content, err := readKeyFile(flag, path)
	if err != nil {
		return nil, err
	}
	public, err := identity.ParsePublicKey(string(content))
	if err != nil {
		return nil, wrongUse("%s %s: %w", flag, path, err)
	}
	return public, nil
}

// rootsBeside reads the trust roots that were named, else a trust.json that lies
// in the folder of a file. Nil means that there are none.
func rootsBeside(named, file string) (roots *trust.Roots, path string, err error) {
	path = named
	if path == "" {
		path = filepath.Join(filepath.Dir(file), "trust.json")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, "", nil
		}
	}
	if roots, err = trust.LoadRoots(path); err != nil {
		return nil, path, wrongUse("%w", err)
	}
	return roots, path, nil
}

// checkPinned refuses a key whose signatures nobody would take.
func checkPinned(flag, keyFile, role, rootsFile string, slot *trust.Slot, public trust.Key, now time.Time) error {
	if slot != nil && slices.ContainsFunc(slot.ValidAt(now), func(k trust.Key) bool { return k.ID() == public.ID() }) {
		return nil
	}
	return fmt.Errorf("%s %s: %s does not pin %s as %s, so nobody would take what it signs; take the pinned key, or name the trust roots with --trust-file", flag, keyFile, rootsFile, public.ID(), role)
}
