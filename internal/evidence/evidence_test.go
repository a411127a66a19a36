package evidence_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/evidence"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

const rollout = "stable@0123456789abcdef0123456789abcdef01234567"

func hostKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := identity.LoadHostKey("testdata/vectors/ssh_host_ed25519_key")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func strangersKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, 32)) }

// TestVector: a record that another program sealed, byte for byte.
func TestVector(t *testing.T) {
	raw, err := os.ReadFile("testdata/vectors/event-record.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Record          evidence.Record
		CanonicalSha256 string
		Signature       string
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	canonical, err := want.Record.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if got := trust.Sum(canonical); got != want.CanonicalSha256 {
		t.Errorf("sha256 %s, want %s of %s", got, want.CanonicalSha256, canonical)
	}
	envelope, hash, err := evidence.Seal(want.Record, hostKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if envelope.Signature != want.Signature || hash != want.CanonicalSha256 {
		t.Errorf("signature %s, want %s", envelope.Signature, want.Signature)
	}
	if got, err := evidence.Verify(envelope, publicOf(hostKey(t))); err != nil || got != hash {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := wire.DecodeEvent(envelope.Event); err != nil {
		t.Error(err)
	}
}

// TestEnvelopeSurvivesTheWay: encoded, indented, escaped and decoded, the record
// is what was signed.
func TestEnvelopeSurvivesTheWay(t *testing.T) {
	envelope := chainOf(t, 1)[0]
	sent, err := json.MarshalIndent(wire.BatchRequest{Events: []wire.Envelope{envelope}}, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	var received wire.BatchRequest
	if err := json.Unmarshal(sent, &received); err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Verify(received.Events[0], publicOf(hostKey(t))); err != nil {
		t.Error(err)
	}
}

// TestSignatureBindsEverything: a signature cannot be moved to another host,
// rollout, event, boot, version, time or place in the chain.
func TestSignatureBindsEverything(t *testing.T) {
	for name, change := range map[string]func(*wire.Envelope){
		"hostname":  func(e *wire.Envelope) { e.Hostname = "web-02" },
		"rolloutId": func(e *wire.Envelope) { e.RolloutID = "edge@01" },
		"event": func(e *wire.Envelope) {
			e.Event = json.RawMessage(strings.Replace(string(e.Event), `"seq":1`, `"seq":2`, 1))
		},
		"bootId":       func(e *wire.Envelope) { e.BootID = "other" },
		"agentVersion": func(e *wire.Envelope) { e.AgentVersion = "9" },
		"recordedAt":   func(e *wire.Envelope) { e.RecordedAt = "2026-11-23T12:00:00.0Z" },
		"prev":         func(e *wire.Envelope) { e.Prev = strings.Repeat("1", 64) },
		"signature":    func(e *wire.Envelope) { e.Signature = "00" + e.Signature[2:] },
		"not hex":      func(e *wire.Envelope) { e.Signature = "zz" },
		"no signature": func(e *wire.Envelope) { e.Signature = "" },
	} {
		envelope := chainOf(t, 1)[0]
		change(&envelope)
		if _, err := evidence.Verify(envelope, publicOf(hostKey(t))); !errors.Is(err, evidence.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := evidence.Verify(chainOf(t, 1)[0], nil); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("without a key: %v", err)
	}
}

// TestAmbiguousEventsAreNoRecords: what two readers could read differently is
// refused before any signature counts.
func TestAmbiguousEventsAreNoRecords(t *testing.T) {
	for _, event := range []string{`{"seq":1,"seq":2}`, `{"seq":1.0}`, `{"seq":9007199254740993}`, `{`, ``, "{\"a\":\"\xff\"}"} {
		envelope := wire.Envelope{Hostname: "web-01", Event: json.RawMessage(event)}
		if _, err := evidence.Verify(envelope, publicOf(hostKey(t))); !errors.Is(err, evidence.ErrMalformed) {
			t.Errorf("%s: %v", event, err)
		}
	}
}

// chainOf seals n events of web-01.
func chainOf(t testing.TB, n int) []wire.Envelope {
	t.Helper()
	return extend(t, nil, evidence.Genesis, n, hostKey(t))
}

func extend(t testing.TB, chain []wire.Envelope, prev string, n int, key ed25519.PrivateKey) []wire.Envelope {
	t.Helper()
	for range n {
		body := lifecycle.Observed{Current: "c", BootDefault: "<&>", BootID: "b"}
		chain, prev = add(t, chain, prev, body, key)
	}
	return chain
}

func add(t testing.TB, chain []wire.Envelope, prev string, body lifecycle.Body, key ed25519.PrivateKey) ([]wire.Envelope, string) {
	t.Helper()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	event, err := wire.EncodeEvent(lifecycle.Event{Seq: int64(len(chain) + 1), At: at, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	envelope, hash, err := evidence.Seal(evidence.Record{
		Hostname: "web-01", RolloutID: rollout, Event: event, BootID: "b", AgentVersion: "0.1.0",
		RecordedAt: at.Format(time.RFC3339), Prev: prev,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return append(slices.Clone(chain), envelope), hash
}

func sshSign(t testing.TB, head string) string {
	t.Helper()
	armoured, err := evidence.SSHSign(head, hostKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return armoured
}

func headOf(t testing.TB, chain []wire.Envelope) string {
	t.Helper()
	canonical, err := evidence.Of(chain[len(chain)-1]).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return trust.Sum(canonical)
}

func TestChain(t *testing.T) {
	records := chainOf(t, 5)
	chain := evidence.Chain{Hostname: "web-01", Key: publicOf(hostKey(t)), Records: records, Head: headOf(t, records)}
	records[2].SSHSig = sshSign(t, headOf(t, records[:3]))
	proven, err := evidence.VerifyChain(chain)
	if err != nil || proven.Records != 5 || proven.Checkpoints != 1 || proven.Head != chain.Head || len(proven.Resets) != 0 {
		t.Errorf("%+v, %v", proven, err)
	}
	// From a checkpoint on.
	chain.After, chain.Records = headOf(t, records[:2]), records[2:]
	if proven, err := evidence.VerifyChain(chain); err != nil || proven.Records != 3 {
		t.Errorf("%+v, %v", proven, err)
	}
	// Nothing was recorded yet.
	empty, err := evidence.VerifyChain(evidence.Chain{Hostname: "web-01", Key: chain.Key})
	if err != nil || empty.Head != evidence.Genesis {
		t.Errorf("%+v, %v", empty, err)
	}
}

// TestTampering: every kind has its own error, at the record that shows it.
func TestTampering(t *testing.T) {
	whole := chainOf(t, 6)
	head := headOf(t, whole)
	changed := func(i int, change func(*wire.Envelope)) []wire.Envelope {
		records := slices.Clone(whole)
		change(&records[i])
		return records
	}
	flip := func(e *wire.Envelope) {
		e.Event = json.RawMessage(strings.Replace(string(e.Event), `"current":"c"`, `"current":"d"`, 1))
	}
	byStranger := extend(t, nil, evidence.Genesis, 6, strangersKey())
	forgedEnd := extend(t, whole[:5], headOf(t, whole[:5]), 1, strangersKey())
	reset := func(code, previous string, at int) []wire.Envelope {
		records, prev := add(t, whole[:at], evidence.Genesis, lifecycle.Notice{Code: code, Detail: "lost", PreviousHead: previous}, hostKey(t))
		return extend(t, records, prev, 1, hostKey(t))
	}
	restart := extend(t, whole[:3], evidence.Genesis, 1, hostKey(t))
	tests := []struct {
		name    string
		records []wire.Envelope
		head    string
		want    error
		index   int
	}{
		{"one record is missing", slices.Delete(slices.Clone(whole), 2, 3), head, evidence.ErrGap, 2},
		{"two records are exchanged", append(append(slices.Clone(whole[:2]), whole[3], whole[2]), whole[4:]...), head, evidence.ErrReordered, 2},
		{"the first two are exchanged", append([]wire.Envelope{whole[1], whole[0]}, whole[2:]...), head, evidence.ErrReordered, 0},
		{"a record is there twice", slices.Insert(slices.Clone(whole), 3, whole[2]), head, evidence.ErrReordered, 3},
		{"a changed byte in the event", changed(3, flip), head, evidence.ErrChanged, 3},
		{"a changed byte in the last event", changed(5, flip), "", evidence.ErrChanged, 5},
		{"a changed link", changed(3, func(e *wire.Envelope) { e.Prev = whole[1].Prev }), head, evidence.ErrChanged, 3},
		{"an event that is no JSON", changed(3, func(e *wire.Envelope) { e.Event = json.RawMessage(`{`) }), head, evidence.ErrChanged, 3},
		{"another key signed all", byStranger, "", evidence.ErrWrongKey, 0},
		{"another key signed the end", forgedEnd, headOf(t, forgedEnd), evidence.ErrWrongKey, 5},
		{"another signature on the same bytes", changed(3, func(e *wire.Envelope) { e.Signature = whole[2].Signature }), head, evidence.ErrWrongKey, 3},
		{"another key signed the only one", byStranger[:1], "", evidence.ErrWrongKey, 0},
		{"an SSH signature of another head", changed(3, func(e *wire.Envelope) { e.SSHSig = sshSign(t, headOf(t, whole[:3])) }), head, evidence.ErrSSHSig, 3},
		{"an SSH signature that is none", changed(3, func(e *wire.Envelope) { e.SSHSig = "none" }), head, evidence.ErrSSHSig, 3},
		{"another host's record", changed(2, func(e *wire.Envelope) { e.Hostname = "web-02" }), head, evidence.ErrOtherHost, 2},
		{"the start is cut off", whole[2:], head, evidence.ErrCutOffStart, 0},
		{"the end is cut off", whole[:4], head, evidence.ErrCutOffEnd, 4},
		{"all is cut off", nil, head, evidence.ErrCutOffEnd, 0},
		{"a new chain that is not announced", restart, "", evidence.ErrGap, 3},
		{"records are missing before a new chain", reset(lifecycle.NoticeChainReset, head, 3), "", evidence.ErrGap, 3},
		{"all is missing before a new chain", reset(lifecycle.NoticeChainReset, head, 0), "", evidence.ErrCutOffStart, 0},
		{"another notice begins a chain", reset(lifecycle.NoticeOutboxFull, "", 3), "", evidence.ErrGap, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := evidence.VerifyChain(evidence.Chain{Hostname: "web-01", Key: publicOf(hostKey(t)), Records: test.records, Head: test.head})
			tampering, ok := errors.AsType[*evidence.Tampering](err)
			if !ok || !errors.Is(err, test.want) || tampering.Index != test.index {
				t.Errorf("got %v, want %v at %d", err, test.want, test.index)
			}
		})
	}
}

// TestResets: a host that lost its journal, or was restored from an older state,
// begins anew and says so; that is shown and is no tampering.
func TestResets(t *testing.T) {
	whole := chainOf(t, 3)
	for name, notice := range map[string]lifecycle.Notice{
		"the head is known":          {Code: lifecycle.NoticeChainReset, Detail: "journal lost", PreviousHead: headOf(t, whole)},
		"the head is lost too":       {Code: lifecycle.NoticeChainReset, Detail: "journal lost"},
		"restored from a snapshot":   {Code: lifecycle.NoticeJournalRegressed, PreviousHead: headOf(t, whole[:1])},
		"restored to the very start": {Code: lifecycle.NoticeJournalRegressed, PreviousHead: ""},
	} {
		records, prev := add(t, whole, evidence.Genesis, notice, hostKey(t))
		records = extend(t, records, prev, 2, hostKey(t))
		proven, err := evidence.VerifyChain(evidence.Chain{Hostname: "web-01", Key: publicOf(hostKey(t)), Records: records, Head: headOf(t, records)})
		if err != nil || proven.Records != 6 || len(proven.Resets) != 1 || proven.Resets[0].Index != 3 || proven.Resets[0].Code != notice.Code {
			t.Errorf("%s: %+v, %v", name, proven, err)
		}
	}
	// A host whose very first record says so has lost nothing that is known.
	records, _ := add(t, nil, evidence.Genesis, lifecycle.Notice{Code: lifecycle.NoticeChainReset}, hostKey(t))
	if proven, err := evidence.VerifyChain(evidence.Chain{Hostname: "web-01", Key: publicOf(hostKey(t)), Records: records}); err != nil || len(proven.Resets) != 1 {
		t.Errorf("%+v, %v", proven, err)
	}
}

// TestInOrder: records come back into the order of their making, and none is
// hidden.
func TestInOrder(t *testing.T) {
	whole := chainOf(t, 5)
	second, _ := add(t, whole, evidence.Genesis, lifecycle.Notice{Code: lifecycle.NoticeChainReset}, hostKey(t))
	fork := extend(t, whole[:2], headOf(t, whole[:2]), 1, strangersKey())[2]
	at := func(order ...int) []wire.Envelope {
		var records []wire.Envelope
		for _, i := range order {
			records = append(records, second[i])
		}
		return records
	}
	for name, c := range map[string]struct{ given, want []wire.Envelope }{
		"as it is":            {at(0, 1, 2), at(0, 1, 2)},
		"sent out of turn":    {at(0, 3, 1, 2, 4), at(0, 1, 2, 3, 4)},
		"the first came last": {at(2, 1, 0), at(0, 1, 2)},
		"two chains":          {at(0, 2, 1, 3, 4, 5), at(0, 1, 2, 3, 4, 5)},
		"one is missing":      {at(0, 3, 1, 4), at(0, 1, 3, 4)},
		"one is there twice":  {at(0, 1, 1, 2), at(0, 1, 2, 1)},
		"one is forged":       {append(at(0, 1, 2), fork), append(at(0, 1, 2), fork)},
		"one is no JSON":      {append(at(1, 0), wire.Envelope{Event: json.RawMessage("{")}), append(at(0, 1), wire.Envelope{Event: json.RawMessage("{")})},
		"there is none":       {nil, nil},
	} {
		got := evidence.InOrder(c.given)
		if !slices.EqualFunc(got, c.want, func(a, b wire.Envelope) bool { return a.Signature == b.Signature }) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// FuzzVerify: no bytes that were not signed are good.
func FuzzVerify(f *testing.F) {
	for _, envelope := range chainOf(f, 2) {
		raw, err := json.Marshal(envelope)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	key := publicOf(hostKey(f))
	good := map[string]bool{headOf(f, chainOf(f, 1)): true, headOf(f, chainOf(f, 2)): true}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e wire.Envelope
		if json.Unmarshal(raw, &e) != nil {
			return
		}
		if hash, err := evidence.Verify(e, key); err == nil && !good[hash] {
			t.Errorf("nobody signed %s", raw)
		}
		_, _ = evidence.VerifyChain(evidence.Chain{Hostname: e.Hostname, Key: key, Records: []wire.Envelope{e, e}})
	})
}

// FuzzSSHVerify: an SSH signature is good for the hash that the host signed, and
// for nothing else.
func FuzzSSHVerify(f *testing.F) {
	key := hostKey(f)
	signed := strings.Repeat("ab", 32)
	for _, by := range []ed25519.PrivateKey{key, strangersKey()} {
		armoured, err := evidence.SSHSign(signed, by)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signed, armoured)
		f.Add(strings.Repeat("cd", 32), armoured)
		f.Add(signed, strings.ReplaceAll(armoured, "\n", "\r\n"))
		f.Add(signed, armoured+armoured)
		f.Add(signed, armoured[:100])
	}
	f.Fuzz(func(t *testing.T, hash, armoured string) {
		err := evidence.SSHVerify(hash, armoured, publicOf(key))
		switch {
		case err != nil && !errors.Is(err, evidence.ErrSignature):
			t.Fatalf("an error without a type: %v", err)
		case err == nil && hash != signed:
			t.Fatalf("nobody signed %q", hash)
		case err == nil && evidence.SSHVerify(hash, armoured, publicOf(strangersKey())) == nil:
			t.Fatal("it is good for any key")
		}
	})
}
