package fleet

import (
	"fmt"
	"strings"
)

const (
	maxHostname = 253
	maxLabel    = 63
)

// CheckHostname tells whether s can name a host: labels of letters, digits, _
// and - between dots. What passes is safe in file names, URLs and certificates.
func CheckHostname(s string) error {
	if len(s) > maxHostname {
		return fmt.Errorf("host name %.80q: longer than %d bytes", s, maxHostname)
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || !isAlnum(label[0]) || !isAlnum(label[len(label)-1]) {
			return fmt.Errorf("host name %.80q: each label begins and ends with a letter or digit and has at most %d of them", s, maxLabel)
		}
		for i := range len(label) {
			if b := label[i]; !isAlnum(b) && b != '_' && b != '-' {
				return fmt.Errorf("host name %.80q: %q cannot stand in it", s, b)
			}
		}
	}
	return nil
}

func isAlnum(b byte) bool { return isDigit(b) || isLower(b) || 'A' <= b && b <= 'Z' }
