package evidence

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// What can have been done to a chain. Every error of VerifyChain is a *Tampering
// that wraps one of them.
var (
	ErrGap         = errors.New("records are missing")
	ErrReordered   = errors.New("records are not in the order in which they were made")
	ErrWrongKey    = errors.New("the record is not signed by the host's key")
	ErrChanged     = errors.New("the record was changed after it was signed")
	ErrOtherHost   = errors.New("the record is another host's")
	ErrCutOffStart = errors.New("the start of the chain is missing")
	ErrCutOffEnd   = errors.New("the end of the chain is missing")
	ErrSSHSig      = errors.New("the SSH signature is not the host's over this record")
)

// Tampering says what is wrong with a chain and where.
type Tampering struct {
	Index  int    // of the record, from 0; for ErrCutOffEnd the number of records
	Record string // rollout and seq, for people
	Kind   error
	Detail string
}

func (t *Tampering) Error() string {
	return fmt.Sprintf("record %d (%s): %v: %s", t.Index+1, t.Record, t.Kind, t.Detail)
}

func (t *Tampering) Unwrap() error { return t.Kind }

// Chain is the records of one host in the order in which they were committed.
type Chain struct {
	Hostname string
	Key      ed25519.PublicKey // as declared for the host
	// After is the hash of the record before the first: Genesis, or a checkpoint
	// that was verified earlier. Empty means Genesis.
	After string
	// Head, when it is not empty, is the hash of the last record, known from
	// somewhere else.
	Head    string
	Records []wire.Envelope
}

// Verified is what a chain that holds proves.
type Verified struct {
	Head        string // hash of the last record; After when there is none
	Records     int
	Checkpoints int // of the records, those with an SSH signature
	Resets      []Reset
}

// Reset is a place where the host began a new chain and said so, because it lost
// its journal or was restored from an older state.
type Reset struct {
	Index        int
	Code         string
	Detail       string
	PreviousHead string // the chain's end as the host remembered it; may be empty
}

// VerifyChain checks every record and every link. The first thing that is wrong
// is the error, as *Tampering, with what was proven before it.
func VerifyChain(c Chain) (Verified, error) {
	head := c.After
	if head == "" {
		head = Genesis
	}
	proven := Verified{Head: head}
	links, err := c.links()
	if err != nil {
		return proven, err
	}
	for i, e := range c.Records {
		if e.Hostname != c.Hostname {
			return proven, c.tampering(i, ErrOtherHost, "it is of %s, the chain is of %s", e.Hostname, c.Hostname)
		}
		if _, err := Verify(e, c.Key); err != nil {
			return proven, c.badSignature(i, links)
		}
		reset, isReset := resetOf(e, i)
		switch {
		case isReset:
			if err := c.checkReset(reset, links); err != nil {
				return proven, err
			}
			proven.Resets = append(proven.Resets, reset)
		case e.Prev != proven.Head:
			return proven, c.brokenLink(i, proven.Head, links)
		}
		if e.SSHSig != "" {
			if err := SSHVerify(links.hashes[i], e.SSHSig, c.Key); err != nil {
				return proven, c.tampering(i, ErrSSHSig, "%v", err)
			}
			proven.Checkpoints++
		}
		proven.Head = links.hashes[i]
		proven.Records++
	}
	if c.Head != "" && c.Head != proven.Head {
		return proven, &Tampering{
			Index:  len(c.Records),
			Record: "after the last",
			Kind:   ErrCutOffEnd,
			Detail: fmt.Sprintf("the last record is %s, the chain ends with %s", short(proven.Head), short(c.Head)),
		}
	}
	return proven, nil
}

// links is how the records of a chain name each other.
type links struct {
	hashes []string        // by index
	index  map[string]int  // by hash
	named  map[string]bool // hashes that a record, or the known head, names
}

func (c Chain) links() (links, error) {
	l := links{
		hashes: make([]string, len(c.Records)),
		index:  make(map[string]int, len(c.Records)),
		named:  map[string]bool{c.Head: true},
	}
	for i, e := range c.Records {
		canonical, err := Of(e).Canonical()
		if err != nil {
			return links{}, c.tampering(i, ErrChanged, "%v", err)
		}
		hash := trust.Sum(canonical)
		l.hashes[i] = hash
		l.index[hash] = i
		l.named[e.Prev] = true
	}
	return l, nil
}

// badSignature tells a changed record from one that another key signed: the
// record after it names the bytes that the host made.
func (c Chain) badSignature(i int, l links) error {
	if l.named[l.hashes[i]] {
		return c.tampering(i, ErrWrongKey, "the chain names its bytes, but the signature is not by the key of %s", c.Hostname)
	}
	if i == 0 && len(c.Records) == 1 {
		return c.tampering(i, ErrWrongKey, "its signature is not by the key of %s, or its bytes were changed; nothing else in the chain tells which", c.Hostname)
	}
	return c.tampering(i, ErrChanged, "its signature does not fit its bytes, and nothing in the chain names them")
}

// brokenLink tells why a record that its host did sign does not name the one
// before it.
func (c Chain) brokenLink(i int, head string, l links) error {
	prev := c.Records[i].Prev
	if j, ok := l.index[prev]; ok {
		return c.tampering(i, ErrReordered, "it was made right after the one that is here record %d", j+1)
	}
	if i == 0 {
		return c.tampering(i, ErrCutOffStart, "it follows %s, and the chain begins after %s", short(prev), short(head))
	}
	return c.tampering(i, ErrGap, "it follows %s, and the record before it is %s", short(prev), short(head))
}

// checkReset looks for the end that the host remembered of its earlier chain. A
// restored machine remembers one that is not the last.
func (c Chain) checkReset(r Reset, l links) error {
	if r.PreviousHead == "" || r.PreviousHead == c.After {
		return nil
	}
	if _, ok := l.index[r.PreviousHead]; ok {
		return nil
	}
	kind := ErrGap
	if r.Index == 0 {
		kind = ErrCutOffStart
	}
	return c.tampering(r.Index, kind, "the host began a new chain here after %s, which is missing", short(r.PreviousHead))
}

// resetOf tells whether a record begins a new chain and says so.
func resetOf(e wire.Envelope, i int) (Reset, bool) {
	if e.Prev != Genesis {
		return Reset{}, false
	}
	event, err := wire.DecodeEvent(e.Event)
	if err != nil {
		return Reset{}, false
	}
	notice, ok := event.Body.(lifecycle.Notice)
	if !ok || notice.Code != lifecycle.NoticeChainReset && notice.Code != lifecycle.NoticeJournalRegressed {
		return Reset{}, false
	}
	return Reset{Index: i, Code: notice.Code, Detail: notice.Detail, PreviousHead: notice.PreviousHead}, true
}

func (c Chain) tampering(i int, kind error, format string, args ...any) error {
	return &Tampering{Index: i, Record: describe(c.Records[i]), Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// describe names a record as far as it can be read.
func describe(e wire.Envelope) string {
	var event struct {
		Kind string `json:"kind"`
		Seq  int64  `json:"seq"`
	}
	if json.Unmarshal(e.Event, &event) != nil {
		return e.RolloutID
	}
	return fmt.Sprintf("%s %d %s", e.RolloutID, event.Seq, event.Kind)
}

// short is enough of a hash for people.
func short(hash string) string {
	if hash == Genesis {
		return "nothing"
	}
	return hash[:min(12, len(hash))]
}
