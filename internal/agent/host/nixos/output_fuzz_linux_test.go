package nixos

import (
	"testing"
	"unicode/utf8"

	"nixfleet/internal/agent/host"
)

// FuzzPathInfo: what Nix says of a path is of that path, and with no signature of
// a pinned key it is not signed.
func FuzzPathInfo(f *testing.F) {
	const base = "1qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-a"
	const hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	for _, output := range []string{
		`[{"path": "/nix/store/` + base + `", "narHash": "` + hash + `", "narSize": 120, "references": [], "signatures": ["cache-1:AAAA"]}]`,
		`{"/nix/store/` + base + `": {"narHash": "` + hash + `", "narSize": 120, "references": ["/nix/store/` + base + `"], "signatures": []}}`,
		`{"` + base + `": {"narHash": "` + hash + `"}}`,
		`{"/nix/store/` + base + `": null}`,
		`[{"path": "/nix/store/` + base + `", "valid": false}]`,
		`[]`, `{}`, `null`, ``,
	} {
		f.Add([]byte(output))
	}
	f.Fuzz(func(t *testing.T, output []byte) {
		info, err := parsePathInfo(output, base)
		if err != nil {
			return
		}
		if info.Base != base {
			t.Fatalf("asked for %s, it says %s", base, info.Base)
		}
		info.Fingerprint()
		if info.Verify(nil) {
			t.Fatal("signed by nobody, and good")
		}
	})
}

// FuzzJournalText: whatever a program wrote, and however journalctl's lines are
// cut, what is reported of it is text, and not much (lesson A16).
func FuzzJournalText(f *testing.F) {
	for _, output := range []string{
		`{"MESSAGE":"started"}` + "\n" + `{"MESSAGE":[255,254,10]}` + "\n" + `{"MESSAGE":null}` + "\n",
		`{"MESSAGE":"cut off`, `{"MESSAGE":[-1,256,1e9]}`, `{}`, "\n\n", `{"MESSAGE":"\ud800"}`, "\xff\xfe",
	} {
		f.Add([]byte(output))
	}
	f.Fuzz(func(t *testing.T, output []byte) {
		text := host.Tail(journalText(output))
		if !utf8.ValidString(text) || len(text) > host.OutputMax {
			t.Fatalf("%d bytes, valid: %t", len(text), utf8.ValidString(text))
		}
	})
}
