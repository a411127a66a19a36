package evidence

import "nixfleet/internal/wire"

// InOrder gives records in the order in which their host made them, as far as
// they name each other: rollouts may have been sent out of turn. Chains, and what
// follows nothing that is here, stay in the order in which they were given; no
// record is left out.
func InOrder(records []wire.Envelope) []wire.Envelope {
	hashes := make([]string, len(records))
	here := map[string]bool{}
	for i, e := range records {
		if hash, err := Hash(e); err == nil { // else nothing can follow it
			hashes[i] = hash
			here[hash] = true
		}
	}
	followers := map[string][]int{}
	var begin []int // of each run of records, the first
	for i, e := range records {
		if here[e.Prev] {
			followers[e.Prev] = append(followers[e.Prev], i)
		} else {
			begin = append(begin, i)
		}
	}
	ordered := make([]wire.Envelope, 0, len(records))
	for len(begin) > 0 {
		i := begin[0]
		begin = begin[1:]
		for {
			ordered = append(ordered, records[i])
			next := followers[hashes[i]]
			delete(followers, hashes[i])
			if len(next) == 0 {
				break
			}
			begin = append(begin, next[1:]...)
			i = next[0]
		}
	}
	return ordered
}
