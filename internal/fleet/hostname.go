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
	for rest, more := s, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if label == "" || len(label) > maxLabel || !alnumBytes[label[0]] || !alnumBytes[label[len(label)-1]] {
			return fmt.Errorf("host name %.80q: each label begins and ends with a letter or digit and has at most %d of them", s, maxLabel)
		}
		if i := indexOther(label, labelBytes); i >= 0 {
			return fmt.Errorf("host name %.80q: %q cannot stand in it", s, label[i])
		}
	}
	return nil
}
