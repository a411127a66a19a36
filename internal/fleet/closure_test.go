package fleet_test

import (
	"strings"
	"testing"

	"nixfleet/internal/fleet"
)

const hash32 = "0123456789abcdfghijklmnpqrsvwxyz" // every character of Nix's base 32

func TestParseClosure(t *testing.T) {
	base := hash32 + "-nixos-system-web_01-26.05+rev?=A"
	for _, s := range []string{base, "/nix/store/" + base} {
		c, err := fleet.ParseClosure(s)
		if err != nil || string(c) != base {
			t.Errorf("ParseClosure(%q) = %q, %v", s, c, err)
		}
		if c.Path() != "/nix/store/"+base {
			t.Errorf("path %s", c.Path())
		}
	}
	if _, err := fleet.ParseClosure(hash32 + "-" + strings.Repeat("n", 211)); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

func TestParseClosureRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty":           "",
		"bare hash":       hash32,
		"empty name":      hash32 + "-",
		"no dash":         hash32 + "_x",
		"letter e":        strings.Replace(hash32, "0", "e", 1) + "-x",
		"letter o":        strings.Replace(hash32, "0", "o", 1) + "-x",
		"letter t":        strings.Replace(hash32, "0", "t", 1) + "-x",
		"letter u":        strings.Replace(hash32, "0", "u", 1) + "-x",
		"capital":         strings.Replace(hash32, "a", "A", 1) + "-x",
		"slash":           hash32 + "-x/y",
		"path within":     "/nix/store/" + hash32 + "-x/bin",
		"other store":     "/gnu/store/" + hash32 + "-x",
		"leading dot":     hash32 + "-.x",
		"newline":         hash32 + "-x\n",
		"space":           hash32 + "-x y",
		"quote":           hash32 + "-x'",
		"non-ASCII":       hash32 + "-é",
		"name of 212":     hash32 + "-" + strings.Repeat("n", 212),
		"hash of 31":      hash32[1:] + "-xx",
		"trailing dotdot": hash32 + "-x/..",
	} {
		if c, err := fleet.ParseClosure(s); err == nil {
			t.Errorf("%s: %q is taken", name, c)
		}
	}
}
