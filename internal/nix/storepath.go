package nix

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// StoreDir is the only store that this package knows.
const StoreDir = "/nix/store"

const (
	pathHashLen = 32  // characters, of 20 bytes
	pathNameMax = 211 // characters; Nix's own limit
)

// CheckBase tells whether base is a store path's base name.
func CheckBase(base string) error {
	hash, name, ok := strings.Cut(base, "-")
	if !ok || len(hash) != pathHashLen {
		return fmt.Errorf("%.80q is no store path name: want 32 characters, a dash and a name", base)
	}
	if _, err := DecodeBase32(hash); err != nil {
		return fmt.Errorf("%.80q is no store path name: %w", base, err)
	}
	return checkName(name)
}

func checkName(name string) error {
	if name == "" || len(name) > pathNameMax || name[0] == '.' {
		return fmt.Errorf("%.80q is no name of a store path", name)
	}
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+-._?=", c) >= 0 {
			continue
		}
		return fmt.Errorf("%.80q is no name of a store path: it has %q", name, c)
	}
	return nil
}

// ParsePath returns the base name of an absolute store path, which must be a
// direct child of the store.
func ParsePath(path string) (string, error) {
	base, ok := strings.CutPrefix(path, StoreDir+"/")
	if !ok {
		return "", fmt.Errorf("%.80q is not in %s", path, StoreDir)
	}
	return base, CheckBase(base)
}

// PathHash is the part of a base name by which a cache is asked for it. The base
// name must be a valid one.
func PathHash(base string) string { return base[:pathHashLen] }

// ContentBase is the base name of a path that is named by its contents: what the
// demo and the tests use in place of a build. Two trees with the same NAR and
// name have the same one.
func ContentBase(nar Hash, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte("output:out:sha256:" + hex.EncodeToString(nar[:]) + ":" + StoreDir + ":" + name))
	folded := make([]byte, 20)
	for i, b := range sum {
		folded[i%len(folded)] ^= b
	}
	return EncodeBase32(folded) + "-" + name, nil
}
