// Package fleettest makes small fleets for the control plane's tests: real keys,
// real signed documents, and hosts that sign their events as agents do.
//
// It needs a test, in whose temporary folder everything lies. It is used by tests
// alone.
package fleettest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nixfleet/internal/evidence"
	"nixfleet/internal/fleet"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// Channel is the channel that all hosts follow.
const Channel = "stable"

// Fleet is an owner's folder and what is declared in it.
type Fleet struct {
	fleetdir.Folder
	Doc   *fleet.Fleet
	Hosts []*Host
	Ahead time.Duration // of the owner's clock: what is signed from now on is dated so

	t       testing.TB
	ci, org trust.Signer
	nonces  []fleet.Nonce
	revoked []fleet.Revocation
	bytes   map[string]signed // by path below the release folder
}

type signed struct{ doc, sig []byte }

// New makes a fleet of n hosts, host-1 and so on, in one wave, with a policy
// that needs neither a soak nor a confirmation.
func New(t testing.TB, n int) *Fleet {
	t.Helper()
	folder, err := fleetdir.Create(filepath.Join(t.TempDir(), "fleet"), fleetdir.Options{
		Names: []string{"127.0.0.1"}, URL: "https://127.0.0.1", Operator: "alice",
		Now: time.Now().Add(-24 * time.Hour), // so that certificates can have expired by now
	})
	check(t, err)
	f := &Fleet{Folder: folder, t: t, bytes: map[string]signed{}}
	f.ci, f.org = f.signer(folder.CIKey()), f.signer(folder.OrgRootKey())
	policy := fleet.DefaultPolicy()
	policy.Confirm = fleet.ConfirmOff
	f.Doc = &fleet.Fleet{
		SchemaVersion: fleet.SchemaVersion,
		Hosts:         map[string]fleet.Host{},
		Channels: map[string]fleet.Channel{Channel: {
			RolloutPolicy: "all", ReconcileIntervalMinutes: 30, FreshnessWindow: 1440, SigningIntervalMinutes: 60,
			Compliance: fleet.Compliance{Frameworks: []string{}, Mode: "disabled"},
		}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{"all": {
			Strategy: "all-at-once", Waves: []fleet.PolicyWave{{Selector: fleet.Selector{All: true}}}, Policy: policy,
		}},
		Waves: map[string][]fleet.Wave{Channel: {{}}}, Edges: []fleet.Edge{}, ChannelEdges: []fleet.Edge{}, DisruptionBudgets: []fleet.Budget{},
	}
	for i := range n {
		h := newHost(t, fmt.Sprintf("host-%d", i+1))
		f.Hosts = append(f.Hosts, h)
		f.Declare(h.Name, h.Key.Public().(ed25519.PublicKey))
	}
	return f
}

func (f *Fleet) signer(file string) trust.Signer {
	content, err := os.ReadFile(file)
	check(f.t, err)
	s, err := trust.LoadSigner(content)
	check(f.t, err)
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Closure is a closure with a name.
func Closure(name string) fleet.Closure {
	return fleet.Closure("0123456789abcdfghijklmnpqrsvwxyz-" + name)
}

// Publish releases: every host gets the closure, the documents are signed now and
// written into the release folder. It returns the id of the rollout.
func (f *Fleet) Publish(ref string, target fleet.Closure) string {
	f.t.Helper()
	for name, h := range f.Doc.Hosts {
		h.ClosureHash = &target
		f.Doc.Hosts[name] = h
	}
	signedAt := time.Now().Add(f.Ahead).UTC().Truncate(time.Millisecond)
	f.Doc.Meta = fleet.Meta{SchemaVersion: fleet.SchemaVersion, SignedAt: &signedAt}
	hash := f.write("fleet.resolved.json", f.Doc)
	manifests, err := fleet.Project(f.Doc, fleet.Release{FleetHash: hash, Ref: ref, Meta: f.Doc.Meta})
	check(f.t, err)
	for _, m := range manifests {
		f.write("rollouts/"+m.ID()+".json", m)
	}
	f.write("bootstrap-nonces.json", fleet.Nonces{SchemaVersion: fleet.SchemaVersion, Nonces: append([]fleet.Nonce{}, f.nonces...), Meta: f.Doc.Meta})
	f.write("revocations.json", fleet.Revocations{SchemaVersion: fleet.SchemaVersion, Revocations: append([]fleet.Revocation{}, f.revoked...), Meta: f.Doc.Meta})
	return manifests[0].ID()
}

// write signs a document into the release folder and returns its hash.
func (f *Fleet) write(name string, doc any) string {
	f.t.Helper()
	canonical, err := trust.Encode(doc)
	check(f.t, err)
	sig, err := f.ci.Sign(canonical)
	check(f.t, err)
	f.bytes[name] = signed{canonical, sig}
	path := filepath.Join(f.Release(), name)
	check(f.t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(f.t, os.WriteFile(path+".sig", sig, 0o644))
	check(f.t, os.WriteFile(path+".new", canonical, 0o644))
	check(f.t, os.Rename(path+".new", path))
	return trust.Sum(canonical)
}

// Bytes are a published document and its signature.
func (f *Fleet) Bytes(name string) (doc, sig []byte) { return f.bytes[name].doc, f.bytes[name].sig }

// Slot is the slot that verifies documents.
func (f *Fleet) Slot() trust.Slot {
	key := f.ci.Public()
	return trust.Slot{Current: &key}
}

// Revoke adds a revocation to the next release.
func (f *Fleet) Revoke(r fleet.Revocation) { f.revoked = append(f.revoked, r) }

// Token mints a bootstrap token; its nonce is allowed by the next release.
func (f *Fleet) Token(h *Host) []byte {
	f.t.Helper()
	now := time.Now().Add(f.Ahead)
	return f.Mint(identity.Claims{
		Hostname: h.Name, ExpectedPubkeyFingerprint: identity.Fingerprint(h.Key.Public().(ed25519.PublicKey)),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), Nonce: identity.NewNonce(),
	})
}

// Mint signs claims and allows their nonce by the next release.
func (f *Fleet) Mint(c identity.Claims) []byte {
	f.t.Helper()
	f.Allow(fleet.Nonce{Nonce: c.Nonce, Hostname: c.Hostname, ExpiresAt: c.ExpiresAt})
	return f.Sign(c)
}

// Sign signs claims whose nonce no release allows.
func (f *Fleet) Sign(c identity.Claims) []byte {
	f.t.Helper()
	token, err := identity.MintToken(c, f.org)
	check(f.t, err)
	return token
}

// Allow adds a nonce to the next release.
func (f *Fleet) Allow(n fleet.Nonce) {
	n.ExpiresAt = n.ExpiresAt.UTC().Truncate(time.Second)
	f.nonces = append(f.nonces, n)
}

// AllowNone takes all nonces out of the next release.
func (f *Fleet) AllowNone() { f.nonces = nil }

// Declare adds a host to the next release, or gives a declared one another key.
// A key of nil declares none.
func (f *Fleet) Declare(name string, key ed25519.PublicKey) {
	var line *string
	if key != nil {
		text := identity.FormatPublicKey(key, "")
		line = &text
	}
	if _, known := f.Doc.Hosts[name]; !known {
		wave := &f.Doc.Waves[Channel][0]
		wave.Hosts = append(wave.Hosts, name)
	}
	f.Doc.Hosts[name] = fleet.Host{System: "x86_64-linux", Tags: []string{}, Channel: Channel, Pubkey: line}
}

// Remove takes a host out of the next release.
func (f *Fleet) Remove(name string) {
	delete(f.Doc.Hosts, name)
	wave := &f.Doc.Waves[Channel][0]
	wave.Hosts = slices.DeleteFunc(wave.Hosts, func(h string) bool { return h == name })
}

// Host signs events as an agent does.
type Host struct {
	Name string
	Key  ed25519.PrivateKey

	t      testing.TB
	seq    map[string]int64
	prev   string
	sealed int64
}

func newHost(t testing.TB, name string) *Host {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	return &Host{Name: name, Key: key, t: t, seq: map[string]int64{}, prev: evidence.Genesis}
}

// Event is the host's next event in a rollout, sealed.
func (h *Host) Event(rollout string, body lifecycle.Body) json.RawMessage {
	h.t.Helper()
	h.seq[rollout]++
	return h.Numbered(rollout, h.seq[rollout], body)
}

// Numbered is an event with a number of the test's choice.
func (h *Host) Numbered(rollout string, seq int64, body lifecycle.Body) json.RawMessage {
	h.t.Helper()
	raw, err := wire.EncodeEvent(lifecycle.Event{Seq: seq, Active: seq, At: time.Now().UTC().Truncate(time.Millisecond), Body: body})
	check(h.t, err)
	return h.Seal(rollout, raw)
}

// Seal makes an envelope of any event, with an SSH signature where one is due.
func (h *Host) Seal(rollout string, event json.RawMessage) json.RawMessage {
	h.t.Helper()
	envelope, hash, err := evidence.Seal(evidence.Record{
		Hostname: h.Name, RolloutID: rollout, Event: event, BootID: "boot-1", AgentVersion: "test",
		RecordedAt: time.Now().UTC().Format(time.RFC3339), Prev: h.prev,
	}, h.Key)
	check(h.t, err)
	h.prev = hash
	h.sealed++
	var of struct{ Kind lifecycle.Kind }
	check(h.t, json.Unmarshal(event, &of))
	if evidence.CheckpointDue(h.sealed, of.Kind) {
		envelope.SSHSig, err = evidence.SSHSign(hash, h.Key)
		check(h.t, err)
	}
	out, err := json.Marshal(envelope)
	check(h.t, err)
	return out
}

// Converge is everything that a host reports on its way from one closure to the
// next, when all goes well.
func (h *Host) Converge(rollout, orderID string, from, to fleet.Closure) []json.RawMessage {
	h.t.Helper()
	var all []json.RawMessage
	for _, body := range []lifecycle.Body{
		lifecycle.DispatchAck{CurrentClosureAtDispatch: from, PriorClosure: from, TargetClosure: to, OrderID: orderID},
		lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: from, BootID: "boot-1"},
		lifecycle.ActivationCompleted{ObservedCurrentClosure: to, BootID: "boot-1"},
		lifecycle.ProbeTopologyDeclared{},
		lifecycle.Persisted{Generation: 2, BootDefaultVerified: true},
		lifecycle.HasConverged{CurrentClosure: to},
	} {
		all = append(all, h.Event(rollout, body))
	}
	return all
}
