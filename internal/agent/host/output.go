package host

import (
	"strings"
	"unicode/utf8"
)

// Tail is the last OutputMax bytes of a program's output, cut between
// characters and valid UTF-8, so that it can be put into any message.
func Tail(output []byte) string {
	if len(output) > OutputMax {
		output = output[len(output)-OutputMax:]
		for len(output) > 0 && !utf8.RuneStart(output[0]) {
			output = output[1:]
		}
	}
	// A replacement is longer than what it replaces, hence the second cut.
	s := strings.ToValidUTF8(string(output), "�")
	for len(s) > OutputMax {
		_, n := utf8.DecodeRuneInString(s)
		s = s[n:]
	}
	return s
}
