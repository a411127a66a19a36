package evidence_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"nixfleet/internal/evidence"
	"nixfleet/internal/wire"
)

// Whoever holds the records, the control plane above all, can leave some out; what
// a record says of where it belongs is signed with it.

// A record is moved to another rollout, host, boot or place. An auditor is told
// at which record, and in which way.
func TestAttackRecordMoved(t *testing.T) {
	whole := chainOf(t, 6)
	head := headOf(t, whole)
	const at = 3
	relabelled := func(change func(*wire.Envelope)) []wire.Envelope {
		records := slices.Clone(whole)
		change(&records[at])
		return records
	}
	renumbered := func(e *wire.Envelope) {
		e.Event = json.RawMessage(strings.Replace(string(e.Event), `"seq":4`, `"seq":5`, 1))
	}
	for _, c := range []struct {
		name    string
		records []wire.Envelope
		want    error
		index   int
	}{
		{"to another rollout", relabelled(func(e *wire.Envelope) { e.RolloutID = "stable@00ff" }), evidence.ErrChanged, at},
		{"to another host", relabelled(func(e *wire.Envelope) { e.Hostname = "web-02" }), evidence.ErrOtherHost, at},
		{"to another boot", relabelled(func(e *wire.Envelope) { e.BootID = "another" }), evidence.ErrChanged, at},
		{"to another number", relabelled(renumbered), evidence.ErrChanged, at},
		{"to another time", relabelled(func(e *wire.Envelope) { e.RecordedAt = "2020-01-01T00:00:00Z" }), evidence.ErrChanged, at},
		{"behind another record", relabelled(func(e *wire.Envelope) { e.Prev = whole[at+1].Prev }), evidence.ErrChanged, at},
		{"to the front", append([]wire.Envelope{whole[at]}, slices.Delete(slices.Clone(whole), at, at+1)...), evidence.ErrReordered, 0},
		{"to the end", append(slices.Delete(slices.Clone(whole), at, at+1), whole[at]), evidence.ErrReordered, at},
	} {
		_, err := evidence.VerifyChain(evidence.Chain{Hostname: "web-01", Key: publicOf(hostKey(t)), Records: c.records, Head: head})
		tampering, ok := errors.AsType[*evidence.Tampering](err)
		if !ok || !errors.Is(err, c.want) || tampering.Index != c.index || !strings.Contains(err.Error(), rollout) && !strings.Contains(err.Error(), "stable@00ff") {
			t.Errorf("%s: %v, want %v at record %d", c.name, err, c.want, c.index+1)
		}
	}
}

// The records of one host, complete and well signed, are handed in as another's.
func TestAttackChainOfAnotherHost(t *testing.T) {
	whole := chainOf(t, 3)
	renamed := slices.Clone(whole)
	for i := range renamed {
		renamed[i].Hostname = "web-02"
	}
	for name, c := range map[string]struct {
		chain evidence.Chain
		want  error
	}{
		"as they are":           {evidence.Chain{Hostname: "web-02", Key: publicOf(hostKey(t)), Records: whole}, evidence.ErrOtherHost},
		"renamed":               {evidence.Chain{Hostname: "web-02", Key: publicOf(hostKey(t)), Records: renamed}, evidence.ErrChanged},
		"with a stranger's key": {evidence.Chain{Hostname: "web-01", Key: publicOf(strangersKey()), Records: whole, Head: headOf(t, whole)}, evidence.ErrWrongKey},
	} {
		if _, err := evidence.VerifyChain(c.chain); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
