package bootloader

import (
	"cmp"
	"strings"
)

// compareEntries orders systemd-boot's menu: what has used up its tries last; what
// has a sort key first, by it, the machine, and the newest version; then the
// highest name.
func compareEntries(a, b bootEntry) int {
	if c := cmp.Compare(bit(a.triesLeft == 0), bit(b.triesLeft == 0)); c != 0 {
		return c
	}
	keyA, keyB := a.values["sort-key"], b.values["sort-key"]
	if c := cmp.Compare(bit(keyA == ""), bit(keyB == "")); c != 0 {
		return c
	}
	if keyA != "" {
		if c := cmp.Or(
			strings.Compare(keyA, keyB),
			strings.Compare(a.values["machine-id"], b.values["machine-id"]),
			compareVersions(b.values["version"], a.values["version"]),
		); c != 0 {
			return c
		}
	}
	return compareVersions(b.id, a.id)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareVersions compares as people count: runs of digits by their value, runs
// of letters by the alphabet, and nothing else counts.
func compareVersions(a, b string) int {
	for {
		runA, restA := firstRun(a)
		runB, restB := firstRun(b)
		if runA == "" || runB == "" {
			return strings.Compare(runA, runB)
		}
		digitsA, digitsB := isDigit(runA[0]), isDigit(runB[0])
		switch {
		case digitsA != digitsB:
			return cmp.Compare(bit(digitsA), bit(digitsB)) // numbers are newer
		case digitsA:
			runA, runB = strings.TrimLeft(runA, "0"), strings.TrimLeft(runB, "0")
			if c := cmp.Compare(len(runA), len(runB)); c != 0 {
				return c
			}
		}
		if c := strings.Compare(runA, runB); c != 0 {
			return c
		}
		a, b = restA, restB
	}
}

// firstRun splits off the first run of digits or of letters, and what is neither
// before it.
func firstRun(s string) (run, rest string) {
	begin := strings.IndexFunc(s, func(r rune) bool { return r < 0x80 && (isDigit(byte(r)) || isLetter(byte(r))) })
	if begin < 0 {
		return "", ""
	}
	end := begin + 1
	for end < len(s) && isDigit(s[end]) == isDigit(s[begin]) && (isDigit(s[end]) || isLetter(s[end])) {
		end++
	}
	return s[begin:end], s[end:]
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
