package probe

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
)

// evidenceKey is the host's in these tests.
var evidenceKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// evidenceFiles are what a collector of evidence leaves.
type evidenceFiles struct {
	t    testing.TB
	path string
}

func newEvidence(t testing.TB) evidenceFiles {
	return evidenceFiles{t, filepath.Join(t.TempDir(), "evidence.json")}
}

func (f evidenceFiles) write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func sign(t testing.TB, doc string, key ed25519.PrivateKey) []byte {
	t.Helper()
	canonical, err := trust.CanonicalAny([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.Sign(key, canonical)
}

// collect writes a document and its signature.
func (f evidenceFiles) collect(doc string) {
	f.t.Helper()
	f.write(f.path, []byte(doc))
	f.write(f.path+".sig", sign(f.t, doc, evidenceKey))
}

// evidenceText is a document of web-01 that was collected at a time; what is given
// takes the place of fields or is added.
func evidenceText(t testing.TB, at time.Time, change map[string]any) string {
	t.Helper()
	doc := map[string]any{
		"schemaVersion": 1, "hostname": "web-01", "collectedAt": at.UTC().Format(time.RFC3339),
		"controls": []any{map[string]any{"controlId": "access-control", "passed": true, "frameworkArticles": map[string]any{"nis2": []string{"21(2)(i)"}}}},
	}
	for name, value := range change {
		if doc[name] = value; value == nil {
			delete(doc, name)
		}
	}
	text, err := json.MarshalIndent(doc, "", "  ") // not canonical: what is signed is
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (f evidenceFiles) machine() Machine {
	return Machine{Evidence: Evidence{Host: "web-01", Key: evidenceKey.Public().(ed25519.PublicKey)}}
}

// check runs a probe of the framework nis2 on the files, with further fields.
func (f evidenceFiles) check(m Machine, fields string) Verdict {
	f.t.Helper()
	path, err := json.Marshal(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	probes := Parse([]byte(fmt.Sprintf(`{"p":{"kind":"evidence","framework":"nis2","evidencePath":%s%s}}`, path, fields)), m).Probes
	return probes[0].Check(f.t.Context()).bounded()
}

// TestEvidence: every way in which evidence can be bad has a reason of its own, to
// the letter.
func TestEvidence(t *testing.T) {
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := func(f evidenceFiles) string { return evidenceText(f.t, time.Now(), nil) }
	with := func(change map[string]any) func(evidenceFiles) {
		return func(f evidenceFiles) { f.collect(evidenceText(f.t, time.Now(), change)) }
	}
	at := func(ago time.Duration) func(evidenceFiles) {
		return func(f evidenceFiles) { f.collect(evidenceText(f.t, time.Now().Add(-ago), nil)) }
	}
	for _, test := range []struct {
		name    string
		prepare func(f evidenceFiles)
		want    string // E is the document's path
	}{
		{"good", with(nil), ""},
		{"signed in base64", func(f evidenceFiles) {
			f.collect(now(f))
			f.write(f.path+".sig", []byte(base64.StdEncoding.EncodeToString(sign(f.t, now(f), evidenceKey))+"\n"))
		}, ""},
		{"fields that are not known", with(map[string]any{"overall": "1/1", "load": 0.25, "collector": map[string]any{"version": "9"}}), ""},
		{"of a minute ahead", at(-time.Minute), ""},
		{"just not stale", at(24 * time.Hour), ""},

		{"not there", func(evidenceFiles) {}, "there is no evidence: E does not exist"},
		{"a folder", func(f evidenceFiles) {
			if err := os.Mkdir(f.path, 0o755); err != nil {
				f.t.Fatal(err)
			}
		}, "evidence cannot be read: read E: is a directory"},
		{"too large", func(f evidenceFiles) { f.write(f.path, make([]byte, maxEvidence+1)) }, "evidence cannot be read: E is larger than 4194304 bytes"},
		{"unsigned", func(f evidenceFiles) { f.write(f.path, []byte(now(f))) }, "E is not signed: E.sig does not exist"},
		{"an empty signature", func(f evidenceFiles) {
			f.collect(now(f))
			f.write(f.path+".sig", nil)
		}, "E is not signed: its signature has to be 64 bytes, raw or in base64"},
		{"a signature that is cut off", func(f evidenceFiles) {
			f.collect(now(f))
			f.write(f.path+".sig", sign(f.t, now(f), evidenceKey)[:63])
		}, "E is not signed: its signature has to be 64 bytes, raw or in base64"},
		{"another key", func(f evidenceFiles) {
			f.collect(now(f))
			f.write(f.path+".sig", sign(f.t, now(f), stranger))
		}, "E was not signed by this host's SSH key, or was changed since"},
		{"changed since", func(f evidenceFiles) {
			f.collect(now(f))
			f.write(f.path, []byte(strings.Replace(now(f), "true", "false", 1)))
		}, "E was not signed by this host's SSH key, or was changed since"},
		{"a field added since", func(f evidenceFiles) {
			f.collect(now(f))
			f.write(f.path, []byte(strings.Replace(now(f), "{", `{"more": 1,`, 1)))
		}, "E was not signed by this host's SSH key, or was changed since"},
		{"no JSON", func(f evidenceFiles) {
			f.write(f.path, []byte("{"))
			f.write(f.path+".sig", make([]byte, 64))
		}, "E is malformed: jsontext: unexpected EOF after offset 1"},
		{"a name twice", func(f evidenceFiles) {
			f.write(f.path, []byte(`{"hostname": "web-01", "hostname": "web-02"}`))
			f.write(f.path+".sig", make([]byte, 64))
		}, "E is malformed: jsontext: duplicate object member name"},
		{"an older schema", with(map[string]any{"schemaVersion": nil}), "E has the schemaVersion none, this agent knows 1"},
		{"a newer schema", with(map[string]any{"schemaVersion": 2, "controls": "elsewhere"}), "E has the schemaVersion 2, this agent knows 1"},
		{"the schema as text", with(map[string]any{"schemaVersion": "1"}), `E has the schemaVersion "1", this agent knows 1`},
		{"not an object", func(f evidenceFiles) { f.collect("[]") }, "E is malformed: json: "},
		{"another host", with(map[string]any{"hostname": "web-02"}), `E is of the host "web-02", this is "web-01"`},
		{"no host", with(map[string]any{"hostname": nil}), `E is of the host "", this is "web-01"`},
		{"a host in another field", with(map[string]any{"hostname": nil, "Hostname": "web-01"}), `E is of the host "", this is "web-01"`},
		{"no time", with(map[string]any{"collectedAt": nil}), "E is malformed: collectedAt is missing"},
		{"stale", at(24*time.Hour + time.Second), "E was collected 24h0m1s ago, maxAgeSeconds is 86400"},
		{"of the future", at(-time.Hour), "E was collected at 2000-01-01T01:00:00Z, which this host's clock says is 1h0m0s ahead"},
		{"no controls", with(map[string]any{"controls": []any{}}), "E has no control that is enforced, of the framework nis2"},
		{"controls of another framework", with(map[string]any{"controls": []any{map[string]any{"controlId": "a", "passed": true, "frameworkArticles": map[string]any{"iso27001": []string{}}}}}),
			"E has no control that is enforced, of the framework nis2"},
		{"a control twice", with(map[string]any{"controls": []any{map[string]any{"controlId": "a", "passed": true}, map[string]any{"controlId": "a", "passed": true}}}),
			"E is malformed: the control a is there twice"},
		{"a control without an id", with(map[string]any{"controls": []any{map[string]any{"passed": true}}}), `E is malformed: the controlId "": 1 to 128 bytes are needed`},
		{"more controls than fit", with(map[string]any{"controls": many(257)}), "E is malformed: 257 controls, at most 256 are read"},
		{"a control that failed", with(map[string]any{"controls": []any{map[string]any{"controlId": "a", "passed": true}, map[string]any{"controlId": "b", "passed": false, "reason": "port 23 is open"}}}),
			"1 of 2 enforced controls fail: b: port 23 is open"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newEvidence(t)
			synctest.Test(t, func(t *testing.T) {
				f.t = t
				test.prepare(f)
				got, want := f.check(f.machine(), ""), strings.ReplaceAll(test.want, "E.sig", f.path+".sig")
				want = strings.ReplaceAll(want, "E ", f.path+" ")
				want = strings.ReplaceAll(want, "E:", f.path+":")
				if prefix := got.Reason[:min(len(want), len(got.Reason))]; strings.HasPrefix(test.want, "E is malformed: json") {
					got.Reason, want = prefix, want[:len(prefix)] // the rest is the decoder's
				}
				expectExactly(t, got, want)
			})
		})
	}
}

func many(n int) (all []any) {
	for i := range n {
		all = append(all, map[string]any{"controlId": fmt.Sprint(i), "passed": true})
	}
	return all
}

// TestEvidenceWhileItIsWritten: a writer replaces two files, one after the other.
func TestEvidenceWhileItIsWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		during func(f evidenceFiles) // half a second after the first look
		want   string
	}{
		{"its signature follows", func(f evidenceFiles) { f.collect(evidenceText(f.t, time.Now(), nil)) }, ""},
		{"it is written again and not signed", func(f evidenceFiles) { f.write(f.path, []byte(evidenceText(f.t, time.Now().Add(time.Minute), nil))) },
			"%s changed while it was read, and was not whole the second time"},
		{"nothing follows", func(evidenceFiles) {}, "%s was not signed by this host's SSH key, or was changed since"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newEvidence(t)
			synctest.Test(t, func(t *testing.T) {
				f.t = t
				f.collect(evidenceText(t, time.Now(), nil))
				f.write(f.path, []byte(evidenceText(t, time.Now().Add(time.Second), nil))) // the new one, with the old signature
				go func() {
					time.Sleep(rereadAfter / 2)
					test.during(f)
				}()
				want := test.want
				if want != "" {
					want = fmt.Sprintf(want, f.path)
				}
				expectExactly(t, f.check(f.machine(), ""), want)
			})
		})
	}
}

// TestEvidenceOfTheSystemBefore proves nothing about the one that soaks.
func TestEvidenceOfTheSystemBefore(t *testing.T) {
	f := newEvidence(t)
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		collectedAt := time.Now()
		f.collect(evidenceText(t, collectedAt, nil))
		time.Sleep(time.Hour)
		m := f.machine()
		live := time.Now()
		m.Evidence.LiveSince = func() time.Time { return live }
		expectExactly(t, f.check(m, ""), f.path+" was collected at 2000-01-01T00:00:00Z, before this system went live at 2000-01-01T01:00:00Z")

		// The same second is no reason to refuse it: collectors know no parts of one.
		live = collectedAt.Add(900 * time.Millisecond)
		expectExactly(t, f.check(m, ""), "")
		live = time.Time{} // it does not soak
		expectExactly(t, f.check(m, ""), "")
	})
}

// TestEvidenceNeedsAKey: without one nothing verifies.
func TestEvidenceNeedsAKey(t *testing.T) {
	f := newEvidence(t)
	f.collect(evidenceText(t, time.Now(), nil))
	expectExactly(t, f.check(Machine{Evidence: Evidence{Host: "web-01"}}, ""), f.path+" cannot be verified: the host has no key")
}

// TestEvidenceControls: which rows there are, in which mode, and what they make
// together.
func TestEvidenceControls(t *testing.T) {
	good := map[string]any{"passed": true}
	bad := map[string]any{"passed": false, "reason": "no disk is encrypted"}
	for _, test := range []struct {
		name     string
		controls any
		fields   string
		want     string
		rows     []string
	}{
		{"an object by id, in words", map[string]any{"a": map[string]any{"status": "pass"}, "b": map[string]any{"status": "fail", "reason": "r"}}, "",
			"1 of 2 enforced controls fail: b: r", []string{"a enforce pass ", "b enforce fail r"}},
		{"words that are not known", map[string]any{"a": map[string]any{"status": "compliant"}, "b": map[string]any{}}, "",
			`2 of 2 enforced controls fail: a: its status is "compliant".; b: it says neither passed nor status`,
			[]string{`a enforce fail its status is "compliant".`, "b enforce fail it says neither passed nor status"}},
		{"passed and status differ", map[string]any{"a": map[string]any{"passed": true, "status": "fail"}}, "",
			"1 of 1 enforced controls fail: a", []string{"a enforce fail "}},
		{"one is observed", map[string]any{"a": good, "b": bad}, `,"controlOverrides":{"b":{"mode":"observe","reason":"until the disks come"}}`,
			"", []string{"a enforce pass ", "b observe fail no disk is encrypted (observe: until the disks come)"}},
		{"one is disabled", map[string]any{"a": good, "b": bad}, `,"controlOverrides":{"b":{"mode":"disabled","reason":"no disks"}}`,
			"", []string{"a enforce pass ", "b disabled fail no disk is encrypted (disabled: no disks)"}},
		{"none is enforced", map[string]any{"a": good}, `,"controlOverrides":{"a":{"mode":"observe","reason":"new"}}`,
			"E has no control that is enforced, of the framework nis2", []string{"a observe pass (observe: new)"}},
		{"an override goes before a control", map[string]any{"a": good, "b": bad}, `,"controls":{"b":{"mode":"enforce"}},"controlOverrides":{"b":{"mode":"observe"}}`,
			"", []string{"a enforce pass ", "b observe fail no disk is encrypted"}},
		{"one that is named is not there", map[string]any{"a": good}, `,"controls":{"c":{"mode":"enforce","reason":"must be"}}`,
			"1 of 2 enforced controls fail: c: the evidence does not have it (enforce: must be)", []string{"a enforce pass ", "c enforce fail the evidence does not have it (enforce: must be)"}},
		{"named controls and no framework", map[string]any{"a": good, "b": bad}, `,"framework":null,"controls":{"a":{"mode":"enforce"}}`,
			"", []string{"a enforce pass "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newEvidence(t)
			f.collect(evidenceText(t, time.Now(), map[string]any{"controls": test.controls}))
			fields := test.fields
			m := f.machine()
			var got Verdict
			if rest, only := strings.CutPrefix(fields, `,"framework":null`); only {
				got = checkOf(t, fmt.Sprintf(`{"kind":"evidence","evidencePath":%q%s}`, f.path, rest), m)(t.Context())
			} else {
				got = f.check(m, fields)
			}
			expectExactly(t, got, strings.Replace(test.want, "E ", f.path+" ", 1))
			var rows []string
			for _, r := range got.SubResults {
				rows = append(rows, fmt.Sprintf("%s %s %s %s", r.ID, r.Mode, r.Status, r.Reason))
			}
			if !slices.Equal(rows, test.rows) {
				t.Errorf("%q, want %q", rows, test.rows)
			}
		})
	}
}

// TestEvidenceByOpenSSL: the signature is one that other programs make.
func TestEvidenceByOpenSSL(t *testing.T) {
	f := newEvidence(t)
	dir := filepath.Dir(f.path)
	run := func(argv ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", argv, err)
		}
		return out
	}
	run("openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem")
	public := run("openssl", "pkey", "-in", "key.pem", "-pubout", "-outform", "DER")
	doc := evidenceText(t, time.Now(), nil)
	canonical, err := trust.CanonicalAny([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	f.write(f.path, []byte(doc))
	f.write(filepath.Join(dir, "signed"), canonical)
	run("openssl", "pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "signed", "-out", f.path+".sig")
	m := f.machine()
	m.Evidence.Key = public[len(public)-ed25519.PublicKeySize:]
	expectExactly(t, f.check(m, ""), "")
}

// TestEvidenceModes: the strictest mode bounds evidence probes that can be run, and
// no others.
func TestEvidenceModes(t *testing.T) {
	for most, want := range map[lifecycle.Mode]string{
		"":                 "broken enforce, ignored disabled, nis2 enforce, seen observe, ssh enforce",
		lifecycle.Enforce:  "broken enforce, ignored disabled, nis2 enforce, seen observe, ssh enforce",
		lifecycle.Observe:  "broken enforce, ignored disabled, nis2 observe, seen observe, ssh enforce",
		lifecycle.Disabled: "broken enforce, ignored disabled, nis2 disabled, seen disabled, ssh enforce",
	} {
		var got []string
		for _, p := range Parse([]byte(`{"nis2":{"kind":"evidence","framework":"nis2"},"seen":{"kind":"evidence","framework":"nis2","mode":"observe"},
			"ignored":{"kind":"evidence","framework":"nis2","mode":"disabled"},"ssh":{"kind":"tcp","port":22},"broken":{"kind":"evidence"}}`), Machine{Evidence: Evidence{Most: most}}).Declared() {
			got = append(got, p.ProbeName+" "+string(p.Mode))
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("at most %q: %s", most, text)
		}
	}
}

// FuzzEvidence: whatever a document is, it counts only with the host's signature,
// for this host, and with a control in it.
func FuzzEvidence(f *testing.F) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	good := evidenceText(f, at, nil)
	f.Add([]byte(good), []byte{})
	f.Add([]byte(good), sign(f, good, evidenceKey))
	f.Add([]byte(evidenceText(f, at, map[string]any{"controls": map[string]any{"a": map[string]any{"status": "pass"}}})), []byte("x"))
	f.Add([]byte(`{"schemaVersion":1,"hostname":"web-01","collectedAt":"2026-11-01T12:00:00Z","controls":[{"controlId":1}]}`), []byte{})
	f.Fuzz(func(t *testing.T, doc, sig []byte) {
		key := evidenceKey.Public().(ed25519.PublicKey)
		s := settings{EvidencePath: "/e", Framework: "nis2", MaxAgeSeconds: 60}
		judged := func(sig []byte) (Verdict, error) {
			canonical, err := pair{doc, sig}.verify(key)
			if err != nil {
				return Verdict{}, err
			}
			return s.judge(canonical, Evidence{Host: "web-01", Key: key}, at).bounded(), nil
		}
		canonical, malformed := trust.CanonicalAny(doc)
		if malformed != nil {
			if _, err := judged(sig); !errors.Is(err, trust.ErrMalformed) {
				t.Fatalf("%v", err)
			}
			return
		}
		right := ed25519.Sign(evidenceKey, canonical)
		if raw, ok := signatureIn(sig); !ok || !slices.Equal(raw, right) {
			if _, err := judged(sig); err == nil {
				t.Fatal("it counts with another signature")
			}
		}
		v, err := judged(right)
		if err != nil {
			t.Fatal(err)
		}
		if v.Status == lifecycle.Pass && (len(v.SubResults) == 0 || v.Reason != "" || !strings.Contains(string(canonical), `"web-01"`)) ||
			v.Status == lifecycle.Fail && v.Reason == "" {
			t.Fatalf("%+v", v)
		}
	})
}
