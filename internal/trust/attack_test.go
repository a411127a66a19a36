package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// Each test here is one way to bring a host a document that its owner did not
// mean for it, now.

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newSigner(tb testing.TB) trust.Signer {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return signerOf(tb, private)
}

func signerOf(tb testing.TB, private any) trust.Signer {
	tb.Helper()
	s, err := trust.NewSigner(private)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// owner is somebody who signs, and the slot that pins the key.
type owner struct {
	testing.TB
	signer trust.Signer
	slot   trust.Slot
}

func newOwner(tb testing.TB) *owner {
	tb.Helper()
	s := newSigner(tb)
	return &owner{tb, s, trust.Slot{Current: new(s.Public())}}
}

// pair is a document and its signature.
type pair struct{ doc, sig []byte }

func (o *owner) sign(doc []byte) pair {
	o.Helper()
	sig, err := trust.SignDocument(doc, o.signer)
	if err != nil {
		o.Fatal(err)
	}
	return pair{doc, sig}
}

func (o *owner) encode(doc any) pair {
	o.Helper()
	text, err := trust.Encode(doc)
	if err != nil {
		o.Fatal(err)
	}
	return o.sign(text)
}

func meta(signedAt time.Time) fleet.Meta {
	return fleet.Meta{SchemaVersion: 1, SignedAt: &signedAt}
}

// manifest is of two hosts, with a window of a day; change may be nil.
func (o *owner) manifest(signedAt time.Time, change func(*fleet.Manifest)) pair {
	o.Helper()
	policy := fleet.DefaultPolicy()
	m := fleet.Manifest{
		SchemaVersion:     1,
		Channel:           "stable",
		ChannelRef:        "ab12",
		FleetResolvedHash: strings.Repeat("0", 64),
		HostSet: []fleet.Target{
			{Hostname: "a", TargetClosure: "00000000000000000000000000000001-system"},
			{Hostname: "b", TargetClosure: "00000000000000000000000000000002-system"},
		},
		Policy:                 &policy,
		FreshnessWindowMinutes: 24 * 60,
		Meta:                   meta(signedAt),
	}
	if change != nil {
		change(&m)
	}
	return o.encode(m)
}

func (o *owner) verify(p pair, now time.Time, mark trust.Mark, want trust.Expect) (trust.Verified[fleet.Manifest], error) {
	return trust.VerifyManifest(p.doc, p.sig, o.slot, now, 0, mark, want)
}

// accept is verify of what has to be good.
func (o *owner) accept(p pair, now time.Time) trust.Verified[fleet.Manifest] {
	o.Helper()
	v, err := o.verify(p, now, trust.Mark{}, trust.Expect{})
	if err != nil {
		o.Fatal(err)
	}
	return v
}

func (o *owner) revocations(signedAt time.Time, hosts ...string) pair {
	o.Helper()
	r := fleet.Revocations{SchemaVersion: 1, Meta: meta(signedAt)}
	for _, h := range hosts {
		r.Revocations = append(r.Revocations, fleet.Revocation{Hostname: h, NotBefore: signedAt})
	}
	return o.encode(r)
}

func (o *owner) verifyRevocations(p pair, now time.Time, mark trust.Mark) (trust.Verified[fleet.Revocations], error) {
	return trust.Verify[fleet.Revocations](p.doc, p.sig, o.slot, now, time.Hour, mark)
}

// wantRefusal checks that the refusal is the one, in every way that it is told.
func wantRefusal(t *testing.T, err error, want trust.Refusal) *trust.Error {
	t.Helper()
	if !errors.Is(err, want) || trust.Reason(err) != string(want) {
		t.Fatalf("%v, want %s", err, want)
	}
	e, ok := errors.AsType[*trust.Error](err)
	if !ok || e.Detail == "" || !strings.HasPrefix(err.Error(), string(want)+": ") {
		t.Fatalf("%#v", err)
	}
	return e
}

func TestAttackNoSignature(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	for _, sig := range [][]byte{nil, {}, make([]byte, 64), p.sig[:63], append(slices.Clone(p.sig), 0)} {
		_, err := o.verify(pair{p.doc, sig}, noon, trust.Mark{}, trust.Expect{})
		if e := wantRefusal(t, err, trust.ErrBadSignature); !e.Now.Equal(noon) {
			t.Errorf("now %s", e.Now)
		}
	}
}

func TestAttackOneFlippedBit(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	for i := range p.doc {
		doc := slices.Clone(p.doc)
		doc[i] ^= 1
		if _, err := o.verify(pair{doc, p.sig}, noon, trust.Mark{}, trust.Expect{}); err == nil {
			t.Fatalf("taken with bit 0 of byte %d flipped: %s", i, doc)
		}
	}
	for i := range p.sig {
		sig := slices.Clone(p.sig)
		sig[i] ^= 0x10
		_, err := o.verify(pair{p.doc, sig}, noon, trust.Mark{}, trust.Expect{})
		wantRefusal(t, err, trust.ErrBadSignature)
	}
}

func TestAttackStrangersKey(t *testing.T) {
	o, stranger := newOwner(t), newOwner(t)
	_, err := o.verify(stranger.manifest(noon, nil), noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
	none := &owner{TB: t, slot: trust.Slot{}}
	_, err = none.verify(o.manifest(noon, nil), noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
}

// An old signature beside changed bytes, or a document and a signature that were
// read at different moments.
func TestAttackSignatureOfAnotherDocument(t *testing.T) {
	o := newOwner(t)
	old, changed := o.manifest(noon, nil), o.manifest(noon.Add(time.Minute), nil)
	_, err := o.verify(pair{changed.doc, old.sig}, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
}

// A field that this program does not know is signed like all others, and is part
// of the plan.
func TestAttackUnknownFieldChanged(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	with := func(field string) []byte { return bytes.Replace(p.doc, []byte(`{`), []byte(`{"a":`+field+`,`), 1) }
	good := o.sign(with(`{"later":1}`))
	v := o.accept(good, noon)
	if !bytes.Equal(v.Bytes(), good.doc) || !bytes.Equal(v.Signature(), good.sig) {
		t.Error("what is kept is not what was received")
	}
	_, err := o.verify(pair{with(`{"later":2}`), good.sig}, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
	_, err = o.verify(o.sign(with(`{"later":2}`)), noon, trust.Mark{}, trust.Expect{PlanHash: v.PlanHash()})
	wantRefusal(t, err, trust.ErrRepublished)
}

// The meaning is signed, not the spelling: white space and escapes on the way
// change nothing, and nothing can hide in them.
func TestReformattedDocumentIsTheSameDocument(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	doc := append(bytes.ReplaceAll(p.doc, []byte(`:"stable"`), []byte(` : "\u0073table"`)), '\n')
	v, err := o.verify(pair{doc, p.sig}, noon, trust.Mark{}, trust.Expect{})
	if err != nil || v.PlanHash() != o.accept(p, noon).PlanHash() {
		t.Error(err)
	}
}

// Two readers of a document with a name twice may see different documents.
func TestAttackDuplicateName(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	doc := bytes.Replace(p.doc, []byte(`"channel":"stable"`), []byte(`"channel":"edge","channel":"stable"`), 1)
	_, err := o.verify(pair{doc, p.sig}, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrMalformed)
}

// A name with other capitals is another name: it does not reach the field.
func TestAttackNameWithOtherCapitals(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	doc := bytes.Replace(p.doc, []byte(`"channelRef":"ab12"`), []byte(`"channelRef":"ab12","ChannelRef":"ff"`), 1)
	if v := o.accept(o.sign(doc), noon); v.Doc().ChannelRef != "ab12" {
		t.Errorf("ref %s", v.Doc().ChannelRef)
	}
}

// The algorithm belongs to the key: what the document says of it is not read,
// and a key's bytes are not tried under another algorithm.
func TestAttackAlgorithmChosenByTheDocument(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, func(m *fleet.Manifest) { m.Meta.SignatureAlgorithm = "none" })
	o.accept(p, noon)
	_, err := o.verify(pair{p.doc, nil}, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
	for _, k := range []trust.Key{
		{Algorithm: trust.ECDSAP256, Public: o.signer.Public().Public},
		{Algorithm: "none", Public: o.signer.Public().Public},
		{Algorithm: "", Public: nil},
		{Algorithm: trust.Ed25519, Public: nil},
	} {
		if k.Verify(p.doc, p.sig) {
			t.Errorf("%s verifies", k.ID())
		}
	}
}

func p256Owner(t *testing.T) *owner {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := signerOf(t, private)
	return &owner{t, s, trust.Slot{Current: new(s.Public())}}
}

// Signatures of TPMs have a high S as often as not; both halves are good.
func TestHighSIsAccepted(t *testing.T) {
	o := p256Owner(t)
	p := o.manifest(noon, nil)
	o.accept(p, noon)
	s := new(big.Int).SetBytes(p.sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(p.sig[32:])
	o.accept(p, noon)
}

func TestAttackSignatureOutOfRange(t *testing.T) {
	o := p256Owner(t)
	p := o.manifest(noon, nil)
	n := elliptic.P256().Params().N
	zero, order := make([]byte, 32), n.FillBytes(make([]byte, 32))
	for _, sig := range [][]byte{
		slices.Concat(zero, zero),
		slices.Concat(p.sig[:32], zero),
		slices.Concat(zero, p.sig[32:]),
		slices.Concat(order, order),
		slices.Concat(p.sig[:32], order),
		slices.Concat(p.sig[32:], p.sig[:32]),
		bytes.Repeat([]byte{0xff}, 64),
	} {
		_, err := o.verify(pair{p.doc, sig}, noon, trust.Mark{}, trust.Expect{})
		wantRefusal(t, err, trust.ErrBadSignature)
	}
}

// Keys change without a moment in which none is valid, and end when they should.
func TestKeyRotation(t *testing.T) {
	o, next, former := newOwner(t), newOwner(t), p256Owner(t)
	retire := noon.Add(time.Hour)
	o.slot.Successor, o.slot.Previous, o.slot.RetireAt = new(next.signer.Public()), new(former.signer.Public()), retire
	for who, signer := range map[string]*owner{"current": o, "previous": former, "successor": next} {
		v := o.accept(signer.manifest(noon, nil), retire.Add(-time.Second))
		if v.KeyID() != signer.signer.Public().ID() {
			t.Errorf("%s: verified by %s", who, v.KeyID())
		}
	}
	_, err := o.verify(next.manifest(noon, nil), retire, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
	o.accept(former.manifest(noon, nil), retire)

	o.slot.RetireAt = time.Time{}
	o.accept(next.manifest(noon, nil), noon)

	o.slot.Successor = o.slot.Current
	keys := o.slot.ValidAt(noon)
	if len(keys) != 3 || keys[0].ID() != o.slot.Current.ID() || keys[1].ID() != o.slot.Previous.ID() {
		t.Errorf("tried in the order %v", keys)
	}
}

// A key was stolen: what it signed before its owner noticed is refused too.
func TestAttackSignedBeforeRejectBefore(t *testing.T) {
	o := newOwner(t)
	o.slot.RejectBefore = noon
	_, err := o.verify(o.manifest(noon.Add(-time.Second), nil), noon, trust.Mark{}, trust.Expect{})
	if e := wantRefusal(t, err, trust.ErrRejectedBefore); !e.SignedAt.Equal(noon.Add(-time.Second)) || !e.Bound.Equal(noon) {
		t.Errorf("%+v", e)
	}
	o.accept(o.manifest(noon, nil), noon)
}

// A date in the future would make a document fresh for longer than its window.
func TestAttackFutureDated(t *testing.T) {
	o := newOwner(t)
	late := noon.Add(trust.Skew + time.Second)
	_, err := o.verify(o.manifest(late, nil), noon, trust.Mark{}, trust.Expect{})
	if e := wantRefusal(t, err, trust.ErrFutureDated); !e.SignedAt.Equal(late) || !e.Now.Equal(noon) {
		t.Errorf("%+v", e)
	}
	o.accept(o.manifest(noon.Add(trust.Skew), nil), noon)
	_, err = o.verify(o.manifest(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), nil), noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrFutureDated)
}

func TestAttackNoDate(t *testing.T) {
	o := newOwner(t)
	_, err := o.verify(o.manifest(noon, func(m *fleet.Manifest) { m.Meta.SignedAt = nil }), noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrNotSigned)
	p := o.manifest(noon, nil)
	doc := bytes.Replace(p.doc, []byte(`,"meta":{"ciCommit":null,"schemaVersion":1,"signedAt":"2026-11-23T12:00:00Z"}`), nil, 1)
	if len(doc) == len(p.doc) {
		t.Fatal("there is no meta to cut")
	}
	_, err = o.verify(o.sign(doc), noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrNotSigned)
}

// A control plane holds back what is new, and serves what is old.
func TestAttackFrozenDocument(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	last := noon.Add(24*time.Hour + trust.Skew)
	o.accept(p, last)
	now := last.Add(time.Second)
	_, err := o.verify(p, now, trust.Mark{}, trust.Expect{})
	e := wantRefusal(t, err, trust.ErrStale)
	if e.Age != 24*time.Hour+61*time.Second || e.Window != 24*time.Hour || !e.SignedAt.Equal(noon) || !e.Now.Equal(now) {
		t.Errorf("%+v", e)
	}
	_, err = o.verify(o.manifest(time.Time{}, nil), noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrStale)
}

// How old a manifest may be is signed with it. What the caller says narrows it,
// and never widens it.
func TestAttackWindowFromTheUntrustedSide(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	verify := func(p pair, age, window time.Duration, f *trust.Verified[fleet.Fleet]) error {
		_, err := trust.VerifyManifest(p.doc, p.sig, o.slot, noon.Add(age), window, trust.Mark{}, trust.Expect{Fleet: f})
		return err
	}
	wantRefusal(t, verify(p, 25*time.Hour, 1000*time.Hour, nil), trust.ErrStale)
	wantRefusal(t, verify(p, 2*time.Hour, time.Hour, nil), trust.ErrStale)
	if err := verify(p, time.Hour, time.Hour, nil); err != nil {
		t.Error(err)
	}

	// Without a window of its own, that of its channel holds, in the same way.
	f := o.fleetDocument(noon)
	own := o.manifest(noon, func(m *fleet.Manifest) { m.FreshnessWindowMinutes, m.FleetResolvedHash = 0, f.Hash() })
	if err := verify(own, 7*time.Hour, 0, &f); err != nil {
		t.Error(err)
	}
	wantRefusal(t, verify(own, 9*time.Hour, 1000*time.Hour, &f), trust.ErrStale)
	wantRefusal(t, verify(own, 2*time.Hour, time.Hour, &f), trust.ErrStale)

	// And where nobody signed one, the caller's; without that nothing is fresh.
	if err := verify(own, 2*time.Hour, 3*time.Hour, nil); err != nil {
		t.Error(err)
	}
	wantRefusal(t, verify(own, 2*time.Hour, 0, nil), trust.ErrStale)
}

// fleetDocument has one channel, stable, with a window of eight hours.
func (o *owner) fleetDocument(signedAt time.Time) trust.Verified[fleet.Fleet] {
	o.Helper()
	policy := fleet.DefaultPolicy()
	policy.AliveSecs = 77
	p := o.encode(fleet.Fleet{
		SchemaVersion:   1,
		Hosts:           map[string]fleet.Host{"a": {Channel: "stable"}},
		Channels:        map[string]fleet.Channel{"stable": {RolloutPolicy: "p", FreshnessWindow: 8 * 60}, "edge": {RolloutPolicy: "p", FreshnessWindow: 60}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{"p": {Policy: policy}},
		Meta:            meta(signedAt),
	})
	v, err := trust.Verify[fleet.Fleet](p.doc, p.sig, o.slot, signedAt, 0, trust.Mark{})
	if err != nil {
		o.Fatal(err)
	}
	return v
}

// A fleet document is as fresh as the widest of its windows allows. What the
// caller says narrows that, and never widens it.
func TestAttackFrozenFleetDocument(t *testing.T) {
	o := newOwner(t)
	f := o.fleetDocument(noon)
	verify := func(age, window time.Duration) error {
		_, err := trust.Verify[fleet.Fleet](f.Bytes(), f.Signature(), o.slot, noon.Add(age), window, trust.Mark{})
		return err
	}
	if err := verify(8*time.Hour, 0); err != nil {
		t.Error(err)
	}
	wantRefusal(t, verify(9*time.Hour, 0), trust.ErrStale)
	wantRefusal(t, verify(9*time.Hour, 1000*time.Hour), trust.ErrStale)
	wantRefusal(t, verify(2*time.Hour, time.Hour), trust.ErrStale)
}

// A producer may sign its own documents again when they have long been stale,
// and only its own.
func TestCheckSignatureKnowsTheProducersOwn(t *testing.T) {
	o, stranger := newOwner(t), newOwner(t)
	p := o.manifest(noon.Add(-1000*time.Hour), nil)
	if err := trust.CheckSignature(p.doc, p.sig, o.slot, noon); err != nil {
		t.Error(err)
	}
	wantRefusal(t, trust.CheckSignature(p.doc, p.sig, stranger.slot, noon), trust.ErrBadSignature)
	wantRefusal(t, trust.CheckSignature([]byte(`[]`), p.sig, o.slot, noon), trust.ErrMalformed)
}

// An older document is still fresh and well signed; the host has had a newer.
func TestAttackOlderStillFreshDocument(t *testing.T) {
	o := newOwner(t)
	older, newer := o.manifest(noon, nil), o.manifest(noon.Add(time.Minute), nil)
	now := noon.Add(time.Hour)
	mark := o.accept(newer, now).Mark()
	_, err := o.verify(older, now, mark, trust.Expect{})
	if e := wantRefusal(t, err, trust.ErrOlderThanAccepted); !e.SignedAt.Equal(noon) || !e.Bound.Equal(noon.Add(time.Minute)) {
		t.Errorf("%+v", e)
	}
	if _, err := o.verify(newer, now, mark, trust.Expect{}); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

// A host that was moved from one channel to another has one mark, so a release
// of its new channel that is older than its last cannot be brought to it.
func TestAttackHostMovedBetweenChannels(t *testing.T) {
	o := newOwner(t)
	mark := o.accept(o.manifest(noon, nil), noon).Mark()
	other := func(signedAt time.Time) pair {
		return o.manifest(signedAt, func(m *fleet.Manifest) { m.Channel = "edge" })
	}
	_, err := o.verify(other(noon.Add(-time.Minute)), noon, mark, trust.Expect{})
	wantRefusal(t, err, trust.ErrOlderThanAccepted)
	_, err = o.verify(other(noon), noon, mark, trust.Expect{})
	wantRefusal(t, err, trust.ErrOlderThanAccepted)
	if _, err := o.verify(other(noon.Add(time.Second)), noon, mark, trust.Expect{}); err != nil {
		t.Error(err)
	}
}

// Two plans with one date: which of them was meant, nobody can say, so the first
// stays.
func TestAttackTwoPlansOfOneDate(t *testing.T) {
	o := newOwner(t)
	mark := o.accept(o.manifest(noon, nil), noon).Mark()
	_, err := o.verify(o.manifest(noon, func(m *fleet.Manifest) { m.ChannelRef = "cd34" }), noon, mark, trust.Expect{})
	wantRefusal(t, err, trust.ErrOlderThanAccepted)
	// The same plan of that date, published with another fleet document, is the
	// same plan.
	again := o.manifest(noon, func(m *fleet.Manifest) { m.FleetResolvedHash = strings.Repeat("1", 64) })
	if _, err := o.verify(again, noon, mark, trust.Expect{}); err != nil {
		t.Error(err)
	}
}

// Of other kinds, what has the same date has to be the same.
func TestAttackTwoDocumentsOfOneDate(t *testing.T) {
	o := newOwner(t)
	first := o.revocations(noon, "a")
	v, err := o.verifyRevocations(first, noon, trust.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.verifyRevocations(first, noon, v.Mark()); err != nil {
		t.Error(err)
	}
	_, err = o.verifyRevocations(o.revocations(noon), noon, v.Mark())
	wantRefusal(t, err, trust.ErrOlderThanAccepted)
	_, err = o.verifyRevocations(o.revocations(noon.Add(-time.Second)), noon, v.Mark())
	wantRefusal(t, err, trust.ErrOlderThanAccepted)
	if _, err := o.verifyRevocations(o.revocations(noon.Add(time.Second)), noon, v.Mark()); err != nil {
		t.Error(err)
	}
}

// Another plan under a known id is refused, however new it is.
func TestAttackRepublishedUnderTheSameID(t *testing.T) {
	o := newOwner(t)
	v := o.accept(o.manifest(noon, nil), noon)
	for name, change := range map[string]func(*fleet.Manifest){
		"target":  func(m *fleet.Manifest) { m.HostSet[0].TargetClosure = m.HostSet[1].TargetClosure },
		"wave":    func(m *fleet.Manifest) { m.HostSet[0].WaveIndex = 1 },
		"host":    func(m *fleet.Manifest) { m.HostSet = m.HostSet[:1] },
		"policy":  func(m *fleet.Manifest) { m.Policy.Confirm = fleet.ConfirmOff },
		"soak":    func(m *fleet.Manifest) { m.Policy.SoakSecsByWave = []int{1} },
		"edges":   func(m *fleet.Manifest) { m.Edges = []fleet.Edge{{Gates: "a", Gated: "b"}} },
		"window":  func(m *fleet.Manifest) { m.FreshnessWindowMinutes++ },
		"display": func(m *fleet.Manifest) { m.DisplayName = "x" },
	} {
		signedAt := noon.Add(time.Minute)
		_, err := o.verify(o.manifest(signedAt, change), signedAt, v.Mark(), trust.Expect{PlanHash: v.PlanHash(), RolloutID: "stable@ab12"})
		if err == nil {
			t.Errorf("another %s is taken", name)
			continue
		}
		wantRefusal(t, err, trust.ErrRepublished)
	}
}

// The plan is frozen, not the bytes: signed again, with a newer date and another
// fleet document, a manifest lives as long as its rollout.
func TestResignedManifestRefreshes(t *testing.T) {
	o := newOwner(t)
	v := o.accept(o.manifest(noon, nil), noon)
	late := noon.Add(30 * 24 * time.Hour)
	doc, err := trust.Restamp(v.Bytes(), meta(late), strings.Repeat("f", 64))
	if err != nil {
		t.Fatal(err)
	}
	again, err := o.verify(o.sign(doc), late, v.Mark(), trust.Expect{PlanHash: v.PlanHash()})
	if err != nil {
		t.Fatal(err)
	}
	if again.PlanHash() != v.PlanHash() || !again.SignedAt().Equal(late) || again.Doc().FleetResolvedHash != strings.Repeat("f", 64) {
		t.Errorf("%+v", again.Doc())
	}
}

// A well signed manifest of something else than what was asked for.
func TestAttackAnotherRollout(t *testing.T) {
	o := newOwner(t)
	for _, change := range []func(*fleet.Manifest){
		func(m *fleet.Manifest) { m.Channel = "edge" },
		func(m *fleet.Manifest) { m.ChannelRef = "cd34" },
		func(m *fleet.Manifest) { m.Attempt = 2 },
	} {
		_, err := o.verify(o.manifest(noon, change), noon, trust.Mark{}, trust.Expect{RolloutID: "stable@ab12"})
		wantRefusal(t, err, trust.ErrMismatch)
	}
	v, err := o.verify(o.manifest(noon, func(m *fleet.Manifest) { m.Attempt = 2 }), noon, trust.Mark{}, trust.Expect{RolloutID: "stable@ab12.2"})
	if err != nil || v.Doc().ID() != "stable@ab12.2" {
		t.Error(err)
	}
}

func TestAttackManifestOfOtherHosts(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	_, err := o.verify(p, noon, trust.Mark{}, trust.Expect{Host: "c"})
	wantRefusal(t, err, trust.ErrMismatch)
	if _, err := o.verify(p, noon, trust.Mark{}, trust.Expect{Host: "b"}); err != nil {
		t.Error(err)
	}
}

// One key signs all kinds. Nonces in the place of revocations would be a list of
// no revocations.
func TestAttackDocumentOfAnotherKind(t *testing.T) {
	o := newOwner(t)
	nonces := o.encode(fleet.Nonces{SchemaVersion: 1, Nonces: []fleet.Nonce{{Nonce: "00", Hostname: "a", ExpiresAt: noon}}, Meta: meta(noon)})
	kinds := map[string]pair{
		"fleet":       {o.fleetDocument(noon).Bytes(), o.fleetDocument(noon).Signature()},
		"manifest":    o.manifest(noon, nil),
		"revocations": o.revocations(noon),
		"nonces":      nonces,
	}
	for kind, p := range kinds {
		_, fleetErr := trust.Verify[fleet.Fleet](p.doc, p.sig, o.slot, noon, time.Hour, trust.Mark{})
		_, manifestErr := o.verify(p, noon, trust.Mark{}, trust.Expect{})
		_, revocationsErr := o.verifyRevocations(p, noon, trust.Mark{})
		_, noncesErr := trust.Verify[fleet.Nonces](p.doc, p.sig, o.slot, noon, time.Hour, trust.Mark{})
		for as, err := range map[string]error{"fleet": fleetErr, "manifest": manifestErr, "revocations": revocationsErr, "nonces": noncesErr} {
			if as == kind {
				if err != nil {
					t.Errorf("%s: %v", kind, err)
				}
				continue
			}
			if err == nil {
				t.Errorf("%s is taken as %s", kind, as)
				continue
			}
			wantRefusal(t, err, trust.ErrMalformed)
		}
	}
}

func TestAttackSchemaOfTheFuture(t *testing.T) {
	o := newOwner(t)
	for name, doc := range map[string]string{
		"newer":              `{"schemaVersion":2,"revocations":[],"meta":{"schemaVersion":2,"signedAt":"2026-11-23T12:00:00Z"}}`,
		"newer in meta only": `{"schemaVersion":1,"revocations":[],"meta":{"schemaVersion":2,"signedAt":"2026-11-23T12:00:00Z"}}`,
		"none":               `{"revocations":[],"meta":{"schemaVersion":1,"signedAt":"2026-11-23T12:00:00Z"}}`,
		"with other types":   `{"schemaVersion":2,"revocations":{"a":1},"meta":{"signedAt":"2026-11-23T12:00:00Z"}}`,
	} {
		_, err := o.verifyRevocations(o.sign([]byte(doc)), noon, trust.Mark{})
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		wantRefusal(t, err, trust.ErrSchema)
	}
	for name, doc := range map[string]string{
		"types":       `{"schemaVersion":1,"revocations":{"a":1},"meta":{"signedAt":"2026-11-23T12:00:00Z"}}`,
		"version":     `{"schemaVersion":"1","revocations":[],"meta":{"signedAt":"2026-11-23T12:00:00Z"}}`,
		"date":        `{"schemaVersion":1,"revocations":[],"meta":{"signedAt":"yesterday"}}`,
		"date's type": `{"schemaVersion":1,"revocations":[],"meta":{"signedAt":1763899200}}`,
		"list":        `[{"schemaVersion":1}]`,
	} {
		canonical, err := trust.Canonical([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := o.signer.Sign(canonical)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = o.verifyRevocations(pair{[]byte(doc), sig}, noon, trust.Mark{}); err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		wantRefusal(t, err, trust.ErrMalformed)
	}
	// Without a version in meta, that of the document counts.
	good := `{"schemaVersion":1,"revocations":[],"meta":{"signedAt":"2026-11-23T12:00:00Z"}}`
	if _, err := o.verifyRevocations(o.sign([]byte(good)), noon, trust.Mark{}); err != nil {
		t.Error(err)
	}
}

// The signature is looked at before what the document says: the unsigned learn
// nothing of keys, dates and marks.
func TestAttackerLearnsNothingBeforeTheSignature(t *testing.T) {
	o, stranger := newOwner(t), newOwner(t)
	mark := o.accept(o.manifest(noon, nil), noon).Mark()
	for _, p := range []pair{
		stranger.manifest(noon.Add(time.Hour), nil),
		stranger.manifest(noon.Add(-48*time.Hour), nil),
		stranger.manifest(noon, func(m *fleet.Manifest) { m.SchemaVersion = 9 }),
		stranger.manifest(noon, func(m *fleet.Manifest) { m.Meta.SignedAt = nil }),
		stranger.manifest(noon, func(m *fleet.Manifest) { m.Policy = nil }),
		stranger.manifest(noon, func(m *fleet.Manifest) { m.HostSet[0].TargetClosure = "x" }),
	} {
		_, err := o.verify(p, noon, mark, trust.Expect{RolloutID: "x@1", Host: "none"})
		wantRefusal(t, err, trust.ErrBadSignature)
	}
}

// An older producer's manifest is completed from the very fleet document that it
// was published with, and from no other.
func TestAttackCompletedFromAnotherFleetDocument(t *testing.T) {
	o := newOwner(t)
	f := o.fleetDocument(noon)
	old := o.manifest(noon, func(m *fleet.Manifest) { m.Policy, m.FleetResolvedHash = nil, f.Hash() })
	v, err := o.verify(old, noon, trust.Mark{}, trust.Expect{Fleet: &f})
	if err != nil || v.Doc().Policy.AliveSecs != 77 {
		t.Fatalf("%v, %+v", err, v.Doc())
	}
	other := o.fleetDocument(noon.Add(time.Second))
	_, err = o.verify(old, noon, trust.Mark{}, trust.Expect{Fleet: &other})
	wantRefusal(t, err, trust.ErrMismatch)
	_, err = o.verify(old, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrIncomplete)
	// A manifest with its own policy is tied to the fleet document all the same.
	_, err = o.verify(o.manifest(noon, nil), noon, trust.Mark{}, trust.Expect{Fleet: &f})
	wantRefusal(t, err, trust.ErrMismatch)
	// The document that it names does not know its channel.
	lost := o.manifest(noon, func(m *fleet.Manifest) { m.Policy, m.FleetResolvedHash, m.Channel = nil, f.Hash(), "beta" })
	_, err = o.verify(lost, noon, trust.Mark{}, trust.Expect{Fleet: &f})
	wantRefusal(t, err, trust.ErrMismatch)
}

// Signed by the owner, and still nothing that a host could follow.
func TestAttackTargetThatIsNoClosure(t *testing.T) {
	o := newOwner(t)
	for _, closure := range []fleet.Closure{"", "../../etc", "00000000000000000000000000000001", "00000000000000000000000000000001-x; reboot"} {
		_, err := o.verify(o.manifest(noon, func(m *fleet.Manifest) { m.HostSet[0].TargetClosure = closure }), noon, trust.Mark{}, trust.Expect{})
		if e := wantRefusal(t, err, trust.ErrMalformed); !strings.Contains(e.Detail, "hostSet.a.targetClosure") {
			t.Error(e)
		}
	}
}

func TestPlanHashRefuses(t *testing.T) {
	for _, doc := range []string{``, `[]`, `{"a":1.0}`} {
		if hash, err := trust.PlanHash([]byte(doc)); err == nil {
			t.Errorf("%s has the plan %s", doc, hash)
		}
	}
}

// What is left out of the plan is left out at the top only, wherever it stands.
func TestPlanHashLeavesOutTwoMembers(t *testing.T) {
	plan := func(doc string) string {
		t.Helper()
		hash, err := trust.PlanHash([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	for _, c := range []struct{ doc, rest string }{
		{`{"meta":1}`, `{}`},
		{`{"meta":{"a":[1,"}"]},"fleetResolvedHash":"x"}`, `{}`},
		{`{"a":1,"meta":{}}`, `{"a":1}`},
		{`{"meta":{},"z":1}`, `{"z":1}`},
		{`{"a":[{"b":"],\"{"}],"fleetResolvedHash":"\\","m":2,"meta":0,"z":"\\\""}`, `{"a":[{"b":"],\"{"}],"m":2,"z":"\\\""}`},
		{`{"z":{"meta":1,"fleetResolvedHash":2}}`, `{"z":{"meta":1,"fleetResolvedHash":2}}`},
	} {
		canonical, err := trust.Canonical([]byte(c.rest))
		if err != nil {
			t.Fatal(err)
		}
		if got := plan(c.doc); got != trust.Sum(canonical) {
			t.Errorf("%s: %s, want that of %s", c.doc, got, c.rest)
		}
	}
	if plan(`{"z":{"meta":1}}`) == plan(`{"z":{"meta":2}}`) {
		t.Error("a member of a member is left out")
	}
}

func TestReasonOfOtherErrors(t *testing.T) {
	if got := trust.Reason(errors.New("disk full")); got != "" {
		t.Errorf("reason %q", got)
	}
	if got := trust.Reason(nil); got != "" {
		t.Errorf("reason %q", got)
	}
	if got := trust.ErrStale.Error(); got != "stale" {
		t.Errorf("the refusal says %q", got)
	}
}
