package fleet

// byteSet tells which bytes a name may hold. Names of ten thousand hosts are
// looked at byte by byte, so it is a table.
type byteSet [256]bool

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

var (
	digitBytes     = setOf(digits)
	hexBytes       = setOf(digits + "abcdef")
	alnumBytes     = setOf(digits + lower + upper)
	labelBytes     = setOf(digits + lower + upper + "_-")
	channelBytes   = setOf(digits + lower + "_-")
	storeHashBytes = setOf(digits + "abcdfghijklmnpqrsvwxyz") // Nix's base 32: no e, o, t, u
	storeNameBytes = setOf(digits + lower + upper + "+-._?=")
)

func setOf(members string) *byteSet {
	set := &byteSet{}
	for i := range len(members) {
		set[members[i]] = true
	}
	return set
}

// indexOther is the index of the first byte that is not in the set, or -1.
func indexOther(s string, set *byteSet) int {
	for i := range len(s) {
		if !set[s[i]] {
			return i
		}
	}
	return -1
}
