package trust_test

import (
	"bytes"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

// FuzzVerify: whatever comes, a document is taken only with its own signature.
func FuzzVerify(f *testing.F) {
	for _, name := range []string{"fleet-ed25519", "fleet-p256-high-s", "manifest-ok", "manifest-duplicate-name", "manifest-truncated", "manifest-short-sig"} {
		f.Add(vector(f, name+".json"), vector(f, name+".json.sig"))
	}
	s, err := trust.LoadSigner(vector(f, "ci-ed25519.key.pem")) // the same in each of the fuzzer's processes
	if err != nil {
		f.Fatal(err)
	}
	o := &owner{f, s, trust.Slot{Current: new(s.Public())}}
	good := o.manifest(noon, nil)
	f.Add(good.doc, good.sig)
	f.Fuzz(func(t *testing.T, doc, sig []byte) {
		canonical, malformed := trust.Canonical(doc)
		same := malformed == nil && bytes.Equal(canonical, good.doc)
		for _, p := range []pair{{doc, sig}, {doc, good.sig}} {
			_, err := o.verify(p, noon, trust.Mark{}, trust.Expect{})
			if taken := err == nil; taken != (same && bytes.Equal(p.sig, good.sig)) {
				t.Errorf("%q with %x: %v", p.doc, p.sig, err)
			}
			_, err = trust.Verify[fleet.Fleet](p.doc, p.sig, o.slot, noon, time.Hour, trust.Mark{})
			if trust.Reason(err) == "" {
				t.Errorf("%q with %x, as a fleet: %v", p.doc, p.sig, err)
			}
		}
		// Signed, it is taken or refused, and what is taken has the form that it
		// promises.
		if malformed != nil {
			return
		}
		own, err := o.signer.Sign(canonical)
		if err != nil {
			t.Fatal(err)
		}
		v, err := o.verify(pair{doc, own}, noon, trust.Mark{}, trust.Expect{})
		if err == nil && (v.Doc().Validate() != nil || v.PlanHash() == "") || err != nil && trust.Reason(err) == "" {
			t.Errorf("%q: %v, %+v", doc, err, v)
		}
	})
}
