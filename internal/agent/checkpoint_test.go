package agent

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"testing"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/evidence"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// An outcome, and every thousandth record, is signed for stock tools too, over
// the chain's head as of that record.
func TestOutcomesAndEveryThousandthRecordHaveAnSSHSignature(t *testing.T) {
	r := switching(t)
	r.state.self.Marks.ChainLength = 998 // as if so many had been made before
	reduce(t, r, happens(lifecycle.Observed{Current: was, BootDefault: was, BootID: "b"}))
	reduce(t, r, happens(lifecycle.Observed{Current: was, BootDefault: was, BootID: "b"}))
	reduce(t, r, happens(lifecycle.RollbackSignal{OrderID: "1", Obeyed: true}))
	reduce(t, r, happens(lifecycle.GaveUp{Cause: lifecycle.CauseSignal, PolicyApplied: "rollback-and-halt"}))

	var sealed []wire.Envelope
	err := r.journal.View(func(tx *journal.Tx) error {
		for _, raw := range tx.Events(id, 1) {
			var e wire.Envelope
			if err := json.Unmarshal(raw, &e); err != nil {
				return err
			}
			sealed = append(sealed, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var signed []lifecycle.Kind
	for _, e := range sealed {
		hash, err := evidence.Verify(e, r.key.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		event, err := wire.DecodeEvent(e.Event)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(event.Seq, event.Body.Kind(), e.SSHSig != "")
		if e.SSHSig == "" {
			continue
		}
		signed = append(signed, event.Body.Kind())
		if err := evidence.SSHVerify(hash, e.SSHSig, r.key.Public().(ed25519.PublicKey)); err != nil {
			t.Error(err)
		}
	}
	if want := []lifecycle.Kind{lifecycle.KindObserved, lifecycle.KindFailed}; !slices.Equal(signed, want) {
		t.Errorf("signed are %v, want %v", signed, want)
	}
}
