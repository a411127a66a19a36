package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"nixfleet/internal/fleet"
)

// Roots are the trust anchors of trust.json, which is part of the host's system.
type Roots struct {
	CIReleaseKey   Slot     // signs all documents; has at least one key
	OrgRootKey     *Slot    // signs bootstrap tokens
	CacheKeys      []string // "name:base64", as Nix writes them
	RootCAPem      string   // of the control plane's server certificate; "" when not pinned here
	IssuanceCAPems []string // that have issued agents' certificates
	Warnings       []string // fields that nobody reads: perhaps misspelt
}

// LoadRoots reads trust.json. The error names file and field.
func LoadRoots(path string) (*Roots, error) {
	doc, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("trust roots: %w", err)
	}
	return parseFile(path, doc)
}

func parseFile(path string, doc []byte) (*Roots, error) {
	roots, err := ParseRoots(doc)
	if err != nil {
		return nil, fmt.Errorf("trust roots %s: %w", path, err)
	}
	return roots, nil
}

// RootsFile is a trust.json that is read again whenever it is asked for, because
// a switch may replace it at any time. It serves one goroutine.
type RootsFile struct {
	Path string

	doc   []byte
	roots *Roots
}

// Read is what the file says now. When it cannot be read, or says nothing
// usable, the roots that were good before come with the error.
func (f *RootsFile) Read() (*Roots, error) {
	doc, err := os.ReadFile(f.Path)
	if err != nil {
		return f.roots, fmt.Errorf("trust roots: %w", err)
	}
	if f.roots != nil && bytes.Equal(doc, f.doc) {
		return f.roots, nil
	}
	roots, err := parseFile(f.Path, doc)
	if err != nil {
		return f.roots, err
	}
	f.doc, f.roots = doc, roots
	return roots, nil
}

// ParseRoots reads the text of trust.json. The error names the field.
func ParseRoots(doc []byte) (*Roots, error) {
	top, err := members(doc)
	if err != nil {
		return nil, err
	}
	roots := &Roots{}
	var version int
	if err := top.take("schemaVersion", &version); err != nil {
		return nil, err
	}
	if version != fleet.SchemaVersion {
		return nil, fmt.Errorf("schemaVersion: %d; this program understands %d", version, fleet.SchemaVersion)
	}
	ci, err := top.takeSlot("ciReleaseKey", roots)
	if err != nil {
		return nil, err
	}
	if ci == nil || ci.Current == nil && ci.Previous == nil && ci.Successor == nil {
		return nil, errors.New("ciReleaseKey: no key, so no document could be verified")
	}
	roots.CIReleaseKey = *ci
	if roots.OrgRootKey, err = top.takeSlot("orgRootKey", roots); err != nil {
		return nil, err
	}
	if err := top.take("cacheKeys", &roots.CacheKeys); err != nil {
		return nil, err
	}
	for i, key := range roots.CacheKeys {
		if err := checkCacheKey(key); err != nil {
			return nil, fmt.Errorf("cacheKeys[%d]: %w", i, err)
		}
	}
	if err := top.takeCAs(roots); err != nil {
		return nil, err
	}
	top.warnOfRest("", roots)
	return roots, nil
}

func (o object) takeCAs(roots *Roots) error {
	if err := o.either("rootCaPem", "rootCAPem"); err != nil {
		return err
	}
	if err := o.take("rootCaPem", &roots.RootCAPem); err != nil {
		return err
	}
	if roots.RootCAPem != "" {
		if err := checkCertificates(roots.RootCAPem); err != nil {
			return fmt.Errorf("rootCaPem: %w", err)
		}
	}
	if err := o.either("issuanceCaPems", "issuanceCAPems"); err != nil {
		return err
	}
	if err := o.take("issuanceCaPems", &roots.IssuanceCAPems); err != nil {
		return err
	}
	for i, text := range roots.IssuanceCAPems {
		if err := checkCertificates(text); err != nil {
			return fmt.Errorf("issuanceCaPems[%d]: %w", i, err)
		}
	}
	return nil
}

// takeSlot reads a slot; nil when it is null or absent.
func (o object) takeSlot(name string, roots *Roots) (*Slot, error) {
	value, ok := o[name]
	delete(o, name)
	if !ok || value.Kind() == 'n' {
		return nil, nil
	}
	fields, err := members(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &Slot{}
	for _, key := range []struct {
		name string
		to   **Key
	}{{"current", &s.Current}, {"previous", &s.Previous}, {"successor", &s.Successor}} {
		if *key.to, err = fields.takeKey(key.name, name, roots); err != nil {
			return nil, fmt.Errorf("%s.%w", name, err)
		}
	}
	err = errors.Join(fields.take("retireAt", &s.RetireAt), fields.take("rejectBefore", &s.RejectBefore))
	if err != nil {
		return nil, fmt.Errorf("%s.%w", name, err)
	}
	fields.warnOfRest(name+".", roots)
	return s, nil
}

func (o object) takeKey(name, slot string, roots *Roots) (*Key, error) {
	value, ok := o[name]
	delete(o, name)
	if !ok || value.Kind() == 'n' {
		return nil, nil
	}
	fields, err := members(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	k := &Key{}
	if err := fields.take("algorithm", &k.Algorithm); err != nil {
		return nil, fmt.Errorf("%s.%w", name, err)
	}
	if err := fields.take("public", &k.Public); err != nil {
		return nil, fmt.Errorf("%s.%w", name, err)
	}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	fields.warnOfRest(slot+"."+name+".", roots)
	return k, nil
}

// object is the members of a JSON object that nobody has taken yet.
type object map[string]jsontext.Value

func members(doc []byte) (object, error) {
	if jsontext.Value(doc).Kind() != '{' {
		return nil, errors.New("not a JSON object")
	}
	var o object
	return o, json.Unmarshal(doc, &o)
}

// take decodes a member and removes it. One that is absent or null leaves to as
// it is.
func (o object) take(name string, to any) error {
	value, ok := o[name]
	delete(o, name)
	if !ok || value.Kind() == 'n' {
		return nil
	}
	if err := json.Unmarshal(value, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// either lets a member be spelt in two ways: what stands under also is moved to
// name. Two that differ are refused, because one of them would be ignored.
func (o object) either(name, also string) error {
	second, ok := o[also]
	if !ok {
		return nil
	}
	if first, both := o[name]; both && !bytes.Equal(first, second) {
		return fmt.Errorf("%s: given again, and otherwise, as %s", name, also)
	}
	delete(o, also)
	o[name] = second
	return nil
}

func (o object) warnOfRest(path string, roots *Roots) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		roots.Warnings = append(roots.Warnings, fmt.Sprintf("%s%s: unknown field, ignored", path, name))
	}
}

// checkCacheKey knows the form of a Nix public key, "name:" and 32 bytes in
// base64.
func checkCacheKey(s string) error {
	name, encoded, found := strings.Cut(s, ":")
	public, err := base64.StdEncoding.DecodeString(encoded)
	if !found || name == "" || err != nil || len(public) != 32 {
		return fmt.Errorf("%.120q is not name:base64 with a key of 32 bytes", s)
	}
	return nil
}

// checkCertificates refuses text from which not every PEM block is a
// certificate, or that has none.
func checkCertificates(text string) error {
	rest := []byte(text)
	for n := 0; ; n++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && n == 0:
			return errors.New("holds no PEM certificate")
		case block == nil:
			return nil
		case block.Type != "CERTIFICATE":
			return fmt.Errorf("holds a PEM %q, not a certificate", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
}
