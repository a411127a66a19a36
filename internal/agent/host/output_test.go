package host

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// A16: cutting inside a character must give valid, bounded text.
func TestTail(t *testing.T) {
	for name, in := range map[string]string{
		"short":       "boom\n",
		"nothing":     "",
		"long":        strings.Repeat("x", OutputMax) + "end",
		"in a letter": strings.Repeat("ü", OutputMax) + "end",
		"in a glyph":  "x" + strings.Repeat("😀", OutputMax),
		"no text":     strings.Repeat("\xff\x00", OutputMax),
		"only tails":  strings.Repeat("\x80", 2*OutputMax),
	} {
		out := Tail([]byte(in))
		if len(out) > OutputMax || !utf8.ValidString(out) {
			t.Errorf("%s: %d bytes, valid %v", name, len(out), utf8.ValidString(out))
		}
		if utf8.ValidString(in) && !strings.HasSuffix(in, out) || len(in) <= OutputMax && utf8.ValidString(in) && in != out {
			t.Errorf("%s: not its end", name)
		}
	}
	if out := Tail([]byte(strings.Repeat("x", 2*OutputMax))); len(out) != OutputMax {
		t.Errorf("kept %d bytes, want %d", len(out), OutputMax)
	}
}
