package trust

import "time"

// Mark is the newest document of a kind that was accepted. The zero Mark says
// that none was.
type Mark struct {
	SignedAt time.Time `json:"signedAt,omitzero"`
	Hash     string    `json:"hash,omitempty"` // what must be equal when the date is: a manifest's planHash, else the document's hash
}

// Higher is the newer of two marks; of two of the same date, m.
func (m Mark) Higher(o Mark) Mark {
	if o.SignedAt.After(m.SignedAt) {
		return o
	}
	return m
}

// admit refuses what is older than the mark, or as old and something else.
func (m Mark) admit(signedAt time.Time, hash string) error {
	if signedAt.After(m.SignedAt) || signedAt.Equal(m.SignedAt) && (hash == m.Hash || m == Mark{}) {
		return nil
	}
	e := refuse(ErrOlderThanAccepted, "signed at %s, but one signed at %s was accepted before", stamp(signedAt), stamp(m.SignedAt))
	if signedAt.Equal(m.SignedAt) {
		e.Detail = "another one that was also signed at " + stamp(signedAt) + " was accepted before"
	}
	e.SignedAt, e.Bound = signedAt, m.SignedAt
	return e
}
