package bundle_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/evidence"
	"nixfleet/internal/evidence/bundle"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

const host = "web-01"

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))

// records are n records of a host; the third and the last have an SSH signature.
func records(t testing.TB, n int) []wire.Envelope {
	t.Helper()
	var all []wire.Envelope
	prev := evidence.Genesis
	for seq := range n {
		raw, err := wire.EncodeEvent(lifecycle.Event{Seq: int64(seq + 1), At: time.Unix(0, 0).UTC(), Body: lifecycle.Observed{Current: "c", BootID: "<&>"}})
		if err != nil {
			t.Fatal(err)
		}
		e, hash, err := evidence.Seal(evidence.Record{Hostname: host, RolloutID: "stable@ab", Event: raw, RecordedAt: "2026-11-23T10:00:00Z", Prev: prev}, key)
		if err != nil {
			t.Fatal(err)
		}
		if seq == 2 || seq == n-1 {
			if e.SSHSig, err = evidence.SSHSign(hash, key); err != nil {
				t.Fatal(err)
			}
		}
		all, prev = append(all, e), hash
	}
	return all
}

func made(t testing.TB, records []wire.Envelope) bundle.Bundle {
	t.Helper()
	public := key.Public().(ed25519.PublicKey)
	b, err := bundle.New(map[string][]wire.Envelope{host: records, "web-02": nil}, map[string]ed25519.PublicKey{host: public})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A bundle says what was put into it, as a folder and as an archive.
func TestABundleIsReadAsItWasWritten(t *testing.T) {
	all := records(t, 5)
	b := made(t, []wire.Envelope{all[0], all[3], all[4], all[1], all[2]}) // sent out of turn
	for _, name := range []string{"evidence", "evidence.tar.gz", "evidence.tgz"} {
		path := filepath.Join(t.TempDir(), name)
		if err := b.Write(path); err != nil {
			t.Fatal(err)
		}
		if err := b.Write(path); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s was replaced: %v", name, err)
		}
		got, err := bundle.Read(path)
		if err != nil || !maps.EqualFunc(got, b, bytes.Equal) {
			t.Errorf("%s: %v, %d files of %d", name, err, len(got), len(b))
		}
		proven, err := got.Verify(host, bundle.Expect{Key: key.Public().(ed25519.PublicKey)})
		if err != nil || proven.Records != 5 || proven.Checkpoints != 2 {
			t.Errorf("%s: %+v, %v", name, proven, err)
		}
		if proven, err := got.Verify("web-02", bundle.Expect{}); err != nil || proven.Records != 0 {
			t.Errorf("%s: nothing is %+v, %v", name, proven, err)
		}
	}
}

// Whatever is done to a bundle's files has its own error.
func TestTampering(t *testing.T) {
	const file, signatures = host + "/records.jsonl", host + "/signatures"
	line := func(b bundle.Bundle, change func(lines [][]byte) [][]byte) {
		b[file] = bytes.Join(change(bytes.SplitAfter(b[file], []byte("\n"))), nil)
	}
	replace := func(name, old, new string) func(b bundle.Bundle) {
		return func(b bundle.Bundle) {
			if !bytes.Contains(b[name], []byte(old)) {
				t.Errorf("%s has no %q", name, old)
			}
			b[name] = bytes.Replace(b[name], []byte(old), []byte(new), 1)
		}
	}
	head := func(b bundle.Bundle) string {
		var heads []string
		for name := range b {
			if strings.Contains(name, "/heads/") && !strings.HasSuffix(name, ".sig") {
				heads = append(heads, name)
			}
		}
		return slices.Sorted(slices.Values(heads))[0]
	}
	for _, c := range []struct {
		name   string
		change func(b bundle.Bundle)
		want   error
	}{
		{"a line is gone", func(b bundle.Bundle) { line(b, func(l [][]byte) [][]byte { return slices.Delete(l, 1, 2) }) }, evidence.ErrGap},
		{"the first line is gone", func(b bundle.Bundle) { line(b, func(l [][]byte) [][]byte { return l[1:] }) }, evidence.ErrCutOffStart},
		{"the last line is gone", func(b bundle.Bundle) { line(b, func(l [][]byte) [][]byte { return l[:4] }) }, evidence.ErrCutOffEnd},
		{"two lines are exchanged", func(b bundle.Bundle) {
			line(b, func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l })
		}, evidence.ErrReordered},
		{"a changed byte", replace(file, `"seq":2`, `"seq":7`), evidence.ErrChanged},
		{"a space", replace(file, `"seq":2`, `"seq": 2`), evidence.ErrChanged},
		{"another purpose", replace(file, "event-v1", "event-v2"), evidence.ErrChanged},
		{"another member", replace(file, `"prev":`, `"grev":`), evidence.ErrChanged},
		{"no JSON", replace(file, `{`, `[`), evidence.ErrChanged},
		{"the last line is not ended", func(b bundle.Bundle) { b[file] = append(b[file], "{}"...) }, evidence.ErrChanged},
		{"another host's record", replace(file, host, "web-02"), evidence.ErrOtherHost},
		{"a signature is gone", func(b bundle.Bundle) { b[signatures] = b[signatures][194:] }, evidence.ErrWrongKey},
		{"a signature in capitals", func(b bundle.Bundle) { b[signatures] = bytes.ToUpper(b[signatures]) }, evidence.ErrChanged},
		{"a head that is no hash", func(b bundle.Bundle) { b[head(b)] = []byte("x") }, evidence.ErrChanged},
		{"a head without its signature", func(b bundle.Bundle) { delete(b, head(b)+".sig") }, evidence.ErrChanged},
		{"a head's signature alone", func(b bundle.Bundle) { delete(b, head(b)) }, evidence.ErrChanged},
		{"a head's signature of something else", func(b bundle.Bundle) { b[head(b)+".sig"] = []byte("x") }, evidence.ErrSSHSig},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := made(t, records(t, 5))
			c.change(b)
			_, err := b.Verify(host, bundle.Expect{Key: key.Public().(ed25519.PublicKey)})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// No byte of records and signatures can be flipped unseen.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	for _, name := range []string{host + "/records.jsonl", host + "/signatures"} {
		good := made(t, records(t, 2))
		for i := range good[name] {
			b := maps.Clone(good)
			b[name] = bytes.Clone(good[name])
			b[name][i] ^= 1 << (i % 8)
			if _, err := b.Verify(host, bundle.Expect{Key: key.Public().(ed25519.PublicKey)}); err == nil {
				t.Errorf("byte %d of %s: %q", i, name, b[name][max(0, i-20):min(i+20, len(b[name]))])
			}
		}
	}
}

// A record that no host can have signed is shown, and does not verify.
func TestNothingIsHidden(t *testing.T) {
	all := records(t, 2)
	odd := wire.Envelope{Hostname: host, Event: []byte(`{"seq":0.5}`), Prev: all[1].Prev}
	_, err := made(t, append(all, odd)).Verify(host, bundle.Expect{Key: key.Public().(ed25519.PublicKey)})
	if !errors.Is(err, evidence.ErrChanged) {
		t.Errorf("%v", err)
	}
}

func TestNotABundle(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, text} {
		if _, err := bundle.Read(path); !errors.Is(err, bundle.ErrNotABundle) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := bundle.Read(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	half := filepath.Join(dir, "half.tgz")
	if err := made(t, records(t, 3)).Write(half); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(half)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(half, raw[:len(raw)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Read(half); !errors.Is(err, bundle.ErrNotABundle) {
		t.Errorf("half of one: %v", err)
	}
}

// The commands of the bundle's own page work, and see what they are for.
func TestTheBundleIsCheckedByHand(t *testing.T) {
	b := made(t, records(t, 5))
	dir := filepath.Join(t.TempDir(), "evidence")
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	byHand := func() string {
		t.Helper()
		var script strings.Builder
		for line := range strings.Lines(string(b["README.md"])) {
			if command, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(command, "nixfleet") {
				script.WriteString(strings.ReplaceAll(command, "HOST", host))
			}
		}
		cmd := exec.Command("sh", "-c", script.String())
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := byHand(); strings.Count(out, `Good "nixfleet-evidence" signature for web-01`) != 2 || strings.Count(out, "proven so far") != 2 || strings.Contains(out, "broken") {
		t.Errorf("a good one:\n%s", out)
	}
	file := filepath.Join(dir, host, "records.jsonl")
	if err := os.WriteFile(file, bytes.Replace(b[host+"/records.jsonl"], []byte(`"seq":4`), []byte(`"seq":9`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := byHand(); !strings.Contains(out, "broken before") {
		t.Errorf("a changed one:\n%s", out)
	}
}
