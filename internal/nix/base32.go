package nix

import (
	"fmt"
	"strings"
)

// alphabet is Nix's base 32: no e, o, t, u.
const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// EncodeBase32 writes bytes as Nix does: five bits a character, the last bits of
// the last byte first.
func EncodeBase32(b []byte) string {
	n := (len(b)*8 + 4) / 5
	out := make([]byte, n)
	for i := range out {
		bit := (n - 1 - i) * 5
		at, shift := bit/8, bit%8
		v := uint(b[at]) >> shift
		if at+1 < len(b) {
			v |= uint(b[at+1]) << (8 - shift)
		}
		out[i] = alphabet[v&31]
	}
	return string(out)
}

// DecodeBase32 is the inverse of EncodeBase32. It refuses text that no bytes
// would have been written as.
func DecodeBase32(s string) ([]byte, error) {
	size := len(s) * 5 / 8
	if (size*8+4)/5 != len(s) {
		return nil, fmt.Errorf("base32 text of %d characters", len(s))
	}
	out := make([]byte, size)
	for i := range len(s) {
		digit := strings.IndexByte(alphabet, s[i])
		if digit < 0 {
			return nil, fmt.Errorf("%q is no base32 digit of Nix's", s[i])
		}
		bit := (len(s) - 1 - i) * 5
		at, shift := bit/8, bit%8
		v := uint(digit) << shift
		if at < size {
			out[at] |= byte(v)
			v >>= 8
			at++
		}
		if at < size {
			out[at] |= byte(v)
			v = 0
		}
		if v != 0 {
			return nil, fmt.Errorf("base32 text with bits beyond its %d bytes", size)
		}
	}
	return out, nil
}
