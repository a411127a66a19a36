package trust

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// isCanonical tells whether a text is its own canonical form, and keeps to the
// rules of Canonical. It is exact when it says yes, which the fuzz tests hold
// against the encoder, and may say no where names are not plain ASCII: then the
// encoder decides. What a release writes is canonical, so a host that checks a
// large manifest reads it once here in place of three times there.
func isCanonical(text []byte) bool {
	end, ok := canonicalValue(text, 0, 0)
	return ok && end == len(text)
}

// canonicalValue reads the value at i, and gives the index after it.
func canonicalValue(text []byte, i, depth int) (end int, ok bool) {
	if i >= len(text) {
		return 0, false
	}
	switch c := text[i]; c {
	case '{', '[':
		if depth++; depth > MaxDepth {
			return 0, false
		}
		if c == '[' {
			return canonicalArray(text, i+1, depth)
		}
		return canonicalObject(text, i+1, depth)
	case '"':
		end, _, ok = canonicalString(text, i+1)
		return end, ok
	case 't':
		return i + 4, bytes.HasPrefix(text[i:], []byte("true"))
	case 'f':
		return i + 5, bytes.HasPrefix(text[i:], []byte("false"))
	case 'n':
		return i + 4, bytes.HasPrefix(text[i:], []byte("null"))
	}
	return canonicalInteger(text, i)
}

// canonicalObject reads members from i, after the brace, whose names rise.
func canonicalObject(text []byte, i, depth int) (end int, ok bool) {
	if i < len(text) && text[i] == '}' {
		return i + 1, true
	}
	var before []byte
	for {
		if i >= len(text) || text[i] != '"' {
			return 0, false
		}
		after, plain, ok := canonicalString(text, i+1)
		if !ok || !plain || after >= len(text) || text[after] != ':' {
			return 0, false
		}
		// Between plain ASCII names the order of bytes is that of UTF-16 units.
		name := text[i+1 : after-1]
		if before != nil && bytes.Compare(before, name) >= 0 {
			return 0, false
		}
		before = name
		i, ok = canonicalValue(text, after+1, depth)
		if !ok || i >= len(text) {
			return 0, false
		}
		switch text[i] {
		case '}':
			return i + 1, true
		case ',':
			i++
		default:
			return 0, false
		}
	}
}

func canonicalArray(text []byte, i, depth int) (end int, ok bool) {
	if i < len(text) && text[i] == ']' {
		return i + 1, true
	}
	for {
		i, ok = canonicalValue(text, i, depth)
		if !ok || i >= len(text) {
			return 0, false
		}
		switch text[i] {
		case ']':
			return i + 1, true
		case ',':
			i++
		default:
			return 0, false
		}
	}
}

// plainByte are the bytes that stand for themselves in a string: nearly all that a
// document has, so they are looked up first.
var plainByte = func() (plain [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// canonicalString reads a string from i, after the quote. It is plain when it
// holds neither an escape nor anything but ASCII.
func canonicalString(text []byte, i int) (end int, plain, ok bool) {
	plain = true
	for i < len(text) {
		switch c := text[i]; {
		case plainByte[c]:
			i++
		case c == '"':
			return i + 1, plain, true
		case c == '\\':
			plain = false
			n := canonicalEscape(text[i+1:])
			if n == 0 {
				return 0, false, false
			}
			i += 1 + n
		case c < ' ':
			return 0, false, false
		default:
			plain = false
			r, size := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && size == 1 {
				return 0, false, false
			}
			i += size
		}
	}
	return 0, false, false
}

// canonicalEscape is the length of the escape after a backslash, 0 when another
// form would be the shortest.
func canonicalEscape(text []byte) int {
	if len(text) == 0 {
		return 0
	}
	if bytes.IndexByte([]byte(`"\bfnrt`), text[0]) >= 0 {
		return 1
	}
	if len(text) < 5 || string(text[:3]) != "u00" {
		return 0
	}
	code, err := strconv.ParseUint(string(text[3:5]), 16, 8)
	if err != nil || code >= ' ' || 'A' <= text[4] && text[4] <= 'F' {
		return 0
	}
	switch code {
	case '\b', '\t', '\n', '\f', '\r':
		return 0
	}
	return 5
}

// canonicalInteger reads an integer without a zero or plus before it, and not -0.
func canonicalInteger(text []byte, i int) (end int, ok bool) {
	end = i
	for end < len(text) && isNumberByte(text[end]) {
		end++
	}
	number := text[i:end]
	if len(number) == 1 { // the most common, and nothing to get wrong
		return end, '0' <= number[0] && number[0] <= '9'
	}
	n, err := strconv.ParseInt(string(number), 10, 64)
	return end, err == nil && -maxInteger <= n && n <= maxInteger && strconv.FormatInt(n, 10) == string(number)
}
