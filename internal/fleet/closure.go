package fleet

import (
	"fmt"
	"strings"
)

// StoreDir is where Nix keeps its paths.
const StoreDir = "/nix/store"

// The lengths of a store basename's parts: 160 bits in Nix's base 32, and the
// longest name that Nix gives.
const (
	closureHashLen = 32
	maxClosureName = 211
)

// Closure is a whole store basename, "<32 characters>-<name>", never the bare
// hash: the only way that systems are named in documents and messages.
type Closure string

// Path is the closure's absolute store path.
func (c Closure) Path() string { return StoreDir + "/" + string(c) }

// ParseClosure reads a store path or a store basename.
func ParseClosure(s string) (Closure, error) {
	c := Closure(strings.TrimPrefix(s, StoreDir+"/"))
	return c, c.Validate()
}

// Validate tells whether the closure is a store basename. What passes is safe as
// a file name and holds nothing that a shell or a URL would read otherwise.
func (c Closure) Validate() error {
	if len(c) < closureHashLen+2 || c[closureHashLen] != '-' {
		return fmt.Errorf("closure %.80q: not a store basename, <32 characters>-<name>", string(c))
	}
	hash, name := c[:closureHashLen], c[closureHashLen+1:]
	if i := indexOther(string(hash), storeHashBytes); i >= 0 {
		return fmt.Errorf("closure %.80q: %q cannot stand in a store hash", string(c), hash[i])
	}
	if len(name) > maxClosureName {
		return fmt.Errorf("closure %.80q: the name is longer than %d bytes", string(c), maxClosureName)
	}
	if name[0] == '.' {
		return fmt.Errorf("closure %.80q: the name begins with a dot", string(c))
	}
	if i := indexOther(string(name), storeNameBytes); i >= 0 {
		return fmt.Errorf("closure %.80q: %q cannot stand in a store name", string(c), name[i])
	}
	return nil
}
