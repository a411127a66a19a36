// Package fleetdir makes the folder from which an owner runs a fleet: signing
// keys, a certificate authority, the control plane's and an operator's
// certificates, the trust roots that hosts pin, and a fleet document to start
// from.
//
// It promises a folder that works as it is, with keys that only its owner can
// read, and never writes into one that holds something. It needs a place that is
// private: whoever has the keys has the fleet.
package fleetdir

import "path/filepath"

// Folder is a fleet folder. Its methods are the paths in it.
type Folder string

func (f Folder) in(parts ...string) string {
	return filepath.Join(append([]string{string(f)}, parts...)...)
}

// CIKey signs releases; OrgRootKey signs bootstrap tokens. PEM, PKCS#8, ed25519.
func (f Folder) CIKey() string      { return f.in("keys", "ci.key") }
func (f Folder) OrgRootKey() string { return f.in("keys", "org-root.key") }

// CacheKey signs store paths: Nix's secret key file.
func (f Folder) CacheKey() string { return f.in("keys", "cache.key") }

// CACert and CAKey are the authority of all certificates.
func (f Folder) CACert() string { return f.in("ca", "ca.pem") }
func (f Folder) CAKey() string  { return f.in("ca", "ca.key") }

// ServerCert and ServerKey are the control plane's.
func (f Folder) ServerCert() string { return f.in("control-plane", "server.pem") }
func (f Folder) ServerKey() string  { return f.in("control-plane", "server.key") }

// OperatorCert and OperatorKey are those of the operator who made the folder.
func (f Folder) OperatorCert() string { return f.in("operator", "operator.pem") }
func (f Folder) OperatorKey() string  { return f.in("operator", "operator.key") }

// Config is a configuration file for the nixfleet tool.
func (f Folder) Config() string { return f.in("config.toml") }

// Trust is trust.json.
func (f Folder) Trust() string { return f.in("trust.json") }

// Fleet is the fleet document, not signed yet. Nonces and Revocations lie beside
// it.
func (f Folder) Fleet() string       { return f.in("fleet.json") }
func (f Folder) Nonces() string      { return f.in("bootstrap-nonces.json") }
func (f Folder) Revocations() string { return f.in("revocations.json") }

// Release is where signed documents are published.
func (f Folder) Release() string { return f.in("release") }

// Readme says what to do next.
func (f Folder) Readme() string { return f.in("README.md") }
