package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// small is a signed document in which every byte means something.
func (o *owner) small() pair {
	o.Helper()
	return o.sign([]byte(`{"meta":{"signedAt":"2026-11-23T12:00:00Z"},"revocations":[],"schemaVersion":1}`))
}

// Whatever is done to one byte of a document, it is not taken.
func TestAttackAnyByteChanged(t *testing.T) {
	o := newOwner(t)
	p := o.small()
	if _, err := o.verifyRevocations(p, noon, trust.Mark{}); err != nil {
		t.Fatal(err)
	}
	for i, is := range p.doc {
		others := []byte{0, 0xff, ' ', '\n', '"', '\\', '{', '}', ',', ':', '0', '9', 'e', is ^ 0xff}
		for bit := range 8 {
			others = append(others, is^1<<bit)
		}
		for _, other := range others {
			if other == is {
				continue
			}
			doc := slices.Clone(p.doc)
			doc[i] = other
			_, err := o.verifyRevocations(pair{doc, p.sig}, noon, trust.Mark{})
			if !errors.Is(err, trust.ErrMalformed) && !errors.Is(err, trust.ErrBadSignature) {
				t.Fatalf("byte %d as %q: %v\n%s", i, other, err, doc)
			}
		}
	}
}

// Neither half of a pair is taken when it was cut off, wherever, nor with
// something behind it.
func TestAttackTruncated(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	for n := range p.doc {
		_, err := o.verify(pair{p.doc[:n], p.sig}, noon, trust.Mark{}, trust.Expect{})
		wantRefusal(t, err, trust.ErrMalformed)
	}
	for n := range p.sig {
		_, err := o.verify(pair{p.doc, p.sig[:n]}, noon, trust.Mark{}, trust.Expect{})
		wantRefusal(t, err, trust.ErrBadSignature)
	}
	for _, more := range []string{"{}", "x", "\x00", ",", "]", string(p.doc)} {
		_, err := o.verify(pair{append(slices.Clone(p.doc), more...), p.sig}, noon, trust.Mark{}, trust.Expect{})
		wantRefusal(t, err, trust.ErrMalformed)
	}
	_, err := o.verify(pair{p.doc, append(slices.Clone(p.sig), p.sig...)}, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
}

// with is a manifest with one more member, signed as a careless owner would sign
// it: over its bytes as they are.
func (o *owner) with(member string) pair {
	o.Helper()
	p := o.manifest(noon, nil)
	doc := append([]byte("{"+member+","), p.doc[1:]...)
	sig, err := o.signer.Sign(doc)
	if err != nil {
		o.Fatal(err)
	}
	return pair{doc, sig}
}

// A number that two readers hold differently is refused wherever it stands, also
// under a name that nobody knows and with the owner's own signature.
func TestAttackNumberOutOfRange(t *testing.T) {
	o := newOwner(t)
	for _, number := range []string{
		"9007199254740992", "-9007199254740992", "18446744073709551616", "1e3", "1E400", "0.5", "-0.0", "1.0", "00", "0x1", "Infinity", "-", "1" + strings.Repeat("0", 400),
	} {
		for _, member := range []string{`"aa":` + number, `"aa":[{"b":` + number + `}]`} {
			_, err := o.verify(o.with(member), noon, trust.Mark{}, trust.Expect{})
			wantRefusal(t, err, trust.ErrMalformed)
		}
	}
	for _, number := range []string{"9007199254740991", "-9007199254740991", "0"} {
		if _, err := o.verify(o.with(`"aa":`+number), noon, trust.Mark{}, trust.Expect{}); err != nil {
			t.Errorf("%s: %v", number, err)
		}
	}
}

// Depth without end is found by counting, not by running out of stack.
func TestAttackDeepNesting(t *testing.T) {
	o := newOwner(t)
	nested := func(open, end string, n int) string {
		return `"aa":` + strings.Repeat(open, n) + "1" + strings.Repeat(end, n)
	}
	for _, p := range []pair{
		o.with(nested("[", "]", trust.MaxDepth)), // and the document itself
		o.with(nested(`{"a":`, "}", trust.MaxDepth)),
		o.with(nested("[", "]", 500_000)),
		o.with(nested(`[{"a":`, "}]", 200_000)),
		o.with(`"aa":` + strings.Repeat("[", 200_000)),
	} {
		_, err := o.verify(p, noon, trust.Mark{}, trust.Expect{})
		wantRefusal(t, err, trust.ErrMalformed)
	}
	if _, err := o.verify(o.with(nested("[", "]", trust.MaxDepth-1)), noon, trust.Mark{}, trust.Expect{}); err != nil {
		t.Error(err)
	}
}

// Size is looked at before anything is done with the bytes.
func TestAttackThirtyThreeMebibytes(t *testing.T) {
	o := newOwner(t)
	doc := bytes.Repeat([]byte(" "), 33<<20)
	copy(doc, o.small().doc)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := o.verifyRevocations(pair{doc, o.small().sig}, noon, trust.Mark{})
	runtime.ReadMemStats(&after)
	if e := wantRefusal(t, err, trust.ErrMalformed); e.Detail != fmt.Sprintf("%d bytes, at most %d are read", len(doc), trust.MaxDocument) {
		t.Error(e)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were allocated to refuse it", took)
	}
	// With as much behind it as may be, it is the document that it is.
	if _, err := o.verifyRevocations(pair{doc[:trust.MaxDocument], o.small().sig}, noon, trust.Mark{}); err != nil {
		t.Error(err)
	}
}

// A key that its owner took out of the slot signs nothing any more, however it
// was called while it was in it.
func TestAttackRetiredKey(t *testing.T) {
	o, former := newOwner(t), newOwner(t)
	p := former.manifest(noon, nil)
	o.slot.Previous = new(former.signer.Public())
	o.accept(p, noon)
	o.slot.Previous = nil
	_, err := o.verify(p, noon, trust.Mark{}, trust.Expect{})
	wantRefusal(t, err, trust.ErrBadSignature)
	// Nor does what it signed before come back as news of a rollout that is known.
	_, err = o.verify(p, noon, trust.Mark{}, trust.Expect{PlanHash: former.accept(p, noon).PlanHash(), RolloutID: "stable@ab12"})
	wantRefusal(t, err, trust.ErrBadSignature)
}

// A successor counts up to the second before retireAt, whatever date it gives its
// documents.
func TestAttackSuccessorAfterItsRetirement(t *testing.T) {
	o, next := newOwner(t), newOwner(t)
	retire := noon.Add(time.Hour)
	o.slot.Successor, o.slot.RetireAt = new(next.signer.Public()), retire
	early := next.manifest(noon, nil)
	o.accept(early, retire.Add(-time.Nanosecond))
	for _, now := range []time.Time{retire, retire.Add(time.Second), retire.Add(1000 * time.Hour)} {
		for _, p := range []pair{early, next.manifest(now, nil)} {
			_, err := o.verify(p, now, trust.Mark{}, trust.Expect{})
			if e := wantRefusal(t, err, trust.ErrBadSignature); !strings.Contains(e.Detail, "none of the 1 keys") {
				t.Error(e)
			}
		}
	}
}

// The bytes of a key under the name of the other algorithm, and a signature of
// the one in the place of one of the other.
func TestAttackAlgorithmsConfused(t *testing.T) {
	edwards, p256 := newOwner(t), p256Owner(t)
	both := &owner{t, edwards.signer, trust.Slot{Current: edwards.slot.Current, Previous: p256.slot.Current}}
	for _, signer := range []*owner{edwards, p256} {
		p := signer.manifest(noon, func(m *fleet.Manifest) { m.Meta.SignatureAlgorithm = "ecdsa-p256" })
		if v := both.accept(p, noon); v.KeyID() != signer.signer.Public().ID() {
			t.Errorf("verified by %s", v.KeyID())
		}
		public := signer.signer.Public().Public
		for _, k := range []trust.Key{
			{Algorithm: trust.Ed25519, Public: public[:32]},
			{Algorithm: trust.Ed25519, Public: public[len(public)-32:]},
			{Algorithm: trust.ECDSAP256, Public: slices.Concat(public, public)[:64]},
			{Algorithm: "ED25519", Public: public},
			{Algorithm: "hmac-sha256", Public: public},
		} {
			if k.ID() == signer.signer.Public().ID() || signer == p256 && k.Algorithm == trust.ECDSAP256 {
				continue
			}
			_, err := (&owner{t, edwards.signer, trust.Slot{Current: &k}}).verify(p, noon, trust.Mark{}, trust.Expect{})
			wantRefusal(t, err, trust.ErrBadSignature)
		}
	}
}

// Names become parts of paths and URLs. Signed or not, one that would lead
// somewhere else is none.
func TestAttackNameThatIsAPath(t *testing.T) {
	o := newOwner(t)
	hash := "00000000000000000000000000000001-"
	for _, path := range []string{"..", "../../etc/passwd", "/etc/passwd", "a/b", "a\\..\\b", ".", "", "a\x00b", "a\nb", "%2e%2e%2f", "a?b", "a#b", "~root", "$(reboot)", "a b"} {
		for field, change := range map[string]func(*fleet.Manifest){
			"channel":       func(m *fleet.Manifest) { m.Channel = path },
			"channelRef":    func(m *fleet.Manifest) { m.ChannelRef = path },
			"hostname":      func(m *fleet.Manifest) { m.HostSet[0].Hostname = path },
			"targetClosure": func(m *fleet.Manifest) { m.HostSet[0].TargetClosure = fleet.Closure(path) },
			"its name":      func(m *fleet.Manifest) { m.HostSet[0].TargetClosure = fleet.Closure(hash + path + "/x") },
			"fleet hash":    func(m *fleet.Manifest) { m.FleetResolvedHash = path },
		} {
			_, err := o.verify(o.manifest(noon, change), noon, trust.Mark{}, trust.Expect{})
			if err == nil {
				t.Errorf("%s %q is taken", field, path)
				continue
			}
			wantRefusal(t, err, trust.ErrMalformed)
		}
	}
}

// One second decides: at the last of the window a document is taken, at the next
// it is not; and likewise of one that is ahead.
func TestAttackByASecond(t *testing.T) {
	o := newOwner(t)
	p := o.manifest(noon, nil)
	last, first := noon.Add(24*time.Hour+trust.Skew), noon.Add(-trust.Skew)
	for now, want := range map[time.Time]error{
		last: nil, last.Add(time.Second): trust.ErrStale, first: nil, first.Add(-time.Second): trust.ErrFutureDated,
	} {
		if _, err := o.verify(p, now, trust.Mark{}, trust.Expect{}); !errors.Is(err, want) {
			t.Errorf("at %s: %v, want %v", now, err, want)
		}
	}
	mark := o.accept(p, noon).Mark()
	other := func(d time.Duration) error {
		_, err := o.verify(o.manifest(noon.Add(d), func(m *fleet.Manifest) { m.ChannelRef = "cd34" }), noon, mark, trust.Expect{})
		return err
	}
	if err := other(time.Second); err != nil {
		t.Error(err)
	}
	wantRefusal(t, other(-time.Second), trust.ErrOlderThanAccepted)
	wantRefusal(t, other(0), trust.ErrOlderThanAccepted)
}

// The marks of a host, lost in one of the two places where they are, still refuse
// what is older; only a host that has neither takes it.
func TestAttackReplayAfterALoss(t *testing.T) {
	o := newOwner(t)
	old, newer := o.manifest(noon, nil), o.manifest(noon.Add(time.Minute), nil)
	kept := trust.Marks{Manifest: o.accept(newer, noon).Mark()}
	path := t.TempDir() + "/marks.json"
	if err := kept.Save(path); err != nil {
		t.Fatal(err)
	}
	file, err := trust.LoadMarks(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, marks := range map[string]trust.Marks{
		"the journal is lost": trust.Marks{}.Higher(file), "the file is lost": kept.Higher(trust.Marks{}),
		"the journal is old": trust.Marks{Manifest: o.accept(old, noon).Mark()}.Higher(file),
	} {
		if _, err := o.verify(old, noon, marks.Manifest, trust.Expect{}); !errors.Is(err, trust.ErrOlderThanAccepted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := o.verify(old, noon, trust.Marks{}.Higher(trust.Marks{}).Manifest, trust.Expect{}); err != nil {
		t.Errorf("a host that has nothing: %v", err)
	}
	if bytes.Equal(old.doc, newer.doc) {
		t.Fatal("the two are one")
	}
}
