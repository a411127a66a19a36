package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The limits of a document.
const (
	MaxDocument = 32 << 20 // bytes
	MaxDepth    = 128      // objects and arrays within each other

	maxInteger = 1<<53 - 1 // what every JSON reader holds exactly
)

// Canonical is the RFC 8785 form of a JSON text: the bytes that are hashed and
// signed. Numbers must be integers within ±(2⁵³−1), written without fraction or
// exponent, so that no reader can see another value. A text that has that form
// already is returned as it is, not copied. All errors are ErrMalformed.
func Canonical(doc []byte) ([]byte, error) { return canonical(doc, checkInteger) }

// CanonicalAny is Canonical without the rule that numbers are integers.
func CanonicalAny(doc []byte) ([]byte, error) { return canonical(doc, checkNumber) }

// Sum is the hex SHA-256 of canonical bytes: a document's hash.
func Sum(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// Encode is the canonical form of a Go value: how a producer writes a document.
// What others wrote is never encoded again; see Restamp.
func Encode(doc any) ([]byte, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return Canonical(text)
}

func canonical(doc []byte, number func([]byte) string) ([]byte, error) {
	if len(doc) > MaxDocument {
		return nil, refuse(ErrMalformed, "%d bytes, at most %d are read", len(doc), MaxDocument)
	}
	if text := bytes.TrimRight(doc, " \t\r\n"); isCanonical(text) {
		return text, nil
	}
	if why := scan(doc, number); why != "" {
		return nil, refuse(ErrMalformed, "%s", why)
	}
	// The canonical form of a text without floats is never longer than the text.
	out := bytes.NewBuffer(make([]byte, 0, len(doc)+1))
	enc := jsontext.NewEncoder(out,
		jsontext.CanonicalizeRawInts(true),
		jsontext.CanonicalizeRawFloats(true),
		jsontext.ReorderRawObjects(true))
	if err := enc.WriteValue(doc); err != nil {
		return nil, refuse(ErrMalformed, "%v", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// scan looks at depth and numbers, which the encoder does not. It reads any
// bytes, and may take what is no JSON at all: the encoder refuses that.
func scan(doc []byte, number func([]byte) string) string {
	depth := 0
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case c == '"':
			i = stringEnd(doc, i)
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return "nested deeper than " + strconv.Itoa(MaxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || '0' <= c && c <= '9':
			end := i + 1
			for end < len(doc) && isNumberByte(doc[end]) {
				end++
			}
			if why := number(doc[i:end]); why != "" {
				return why
			}
			i = end - 1
		}
	}
	return ""
}

// stringEnd is the index of the quote that ends the string which begins at i, or
// the text's length.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			break
		}
		escape := bytes.IndexByte(text[i:i+n], '\\')
		if escape < 0 {
			return i + n
		}
		i += escape + 1 // at the escaped byte
	}
	return len(text)
}

func isNumberByte(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

func checkInteger(text []byte) string {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < -maxInteger || n > maxInteger {
		return "the number " + shorten(text) + " is not an integer within ±(2^53-1)"
	}
	return ""
}

func checkNumber(text []byte) string {
	if f, _ := strconv.ParseFloat(string(text), 64); math.IsInf(f, 0) {
		return "the number " + shorten(text) + " is larger than a double can hold"
	}
	return ""
}

func shorten(text []byte) string {
	const most = 40
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}
