package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// ErrNumberUsed means that an event of this rollout has had this number.
var ErrNumberUsed = errors.New("the event's number was used before")

// keySelf is the only key of its bucket.
var keySelf = []byte("self")

// Tx is one transaction. Its getters give copies.
type Tx struct {
	tx      *bbolt.Tx
	journal *Journal
}

// Self gives the host's record; the zero value when there is none yet.
func (t *Tx) Self() (Self, error) {
	var s Self
	_, err := t.get(bucketSelf, keySelf, &s)
	return s, err
}

// PutSelf replaces the host's record.
func (t *Tx) PutSelf(s Self) error { return t.put(bucketSelf, keySelf, s) }

// Rollout gives the record of a rollout, and whether there is one.
func (t *Tx) Rollout(id string) (Rollout, bool, error) {
	var r Rollout
	ok, err := t.get(bucketRollouts, []byte(id), &r)
	return r, ok, err
}

// Rollouts gives all rollouts in the order of their acceptance.
func (t *Tx) Rollouts() ([]Rollout, error) {
	var all []Rollout
	err := t.tx.Bucket(bucketRollouts).ForEach(func(k, v []byte) error {
		var r Rollout
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("read rollout %s: %w", k, err)
		}
		all = append(all, r)
		return nil
	})
	slices.SortFunc(all, func(a, b Rollout) int { return int(a.Order - b.Order) })
	return all, err
}

// PutRollout replaces the record of a rollout.
func (t *Tx) PutRollout(r Rollout) error {
	return t.put(bucketRollouts, []byte(r.Host.Rollout), r)
}

// Forget removes a rollout with its events, dead letters and document.
func (t *Tx) Forget(id string) error {
	if err := t.DropEvents(id, 1, 1<<62); err != nil {
		return err
	}
	prefix := eventPrefix(id)
	dead := t.tx.Bucket(bucketDead)
	c := dead.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
		if err := dead.Delete(k); err != nil {
			return err
		}
	}
	for _, name := range [][]byte{bucketRollouts, bucketAcked, bucketDocuments} {
		if err := t.tx.Bucket(name).Delete([]byte(id)); err != nil {
			return err
		}
	}
	return nil
}

// Append adds an event's envelope to its rollout. Its number must be the next
// one, or any when the rollout has no event here.
func (t *Tx) Append(rollout string, seq int64, envelope []byte) error {
	b := t.tx.Bucket(bucketEvents)
	if last := t.Last(rollout); seq <= last {
		return fmt.Errorf("append event %d of %s after %d: %w", seq, rollout, last, ErrNumberUsed)
	}
	return b.Put(eventKey(rollout, seq), envelope)
}

// Last is the number of the newest event that is held of a rollout, 0 for none.
func (t *Tx) Last(rollout string) int64 {
	prefix := eventPrefix(rollout)
	c := t.tx.Bucket(bucketEvents).Cursor()
	k, _ := c.Seek(eventKey(rollout, 1<<62))
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	if !bytes.HasPrefix(k, prefix) {
		return 0
	}
	return int64(binary.BigEndian.Uint64(k[len(prefix):]))
}

// First is the number of the oldest event that is held of a rollout, 0 for none.
func (t *Tx) First(rollout string) int64 {
	for seq := range t.Events(rollout, 1) {
		return seq
	}
	return 0
}

// Events gives the events of a rollout from a number on, in order: acknowledged
// or not. An envelope is valid until the transaction ends.
func (t *Tx) Events(rollout string, from int64) func(yield func(int64, []byte) bool) {
	return func(yield func(int64, []byte) bool) {
		prefix := eventPrefix(rollout)
		c := t.tx.Bucket(bucketEvents).Cursor()
		for k, v := c.Seek(eventKey(rollout, from)); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if !yield(int64(binary.BigEndian.Uint64(k[len(prefix):])), v) {
				return
			}
		}
	}
}

// DropEvents removes the events of a rollout with numbers from first to last.
func (t *Tx) DropEvents(rollout string, first, last int64) error {
	b := t.tx.Bucket(bucketEvents)
	var keys [][]byte
	for seq := range t.Events(rollout, first) {
		if seq > last {
			break
		}
		keys = append(keys, eventKey(rollout, seq))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Acked is the number up to which the control plane has stored a rollout's
// events.
func (t *Tx) Acked(rollout string) int64 {
	v := t.tx.Bucket(bucketAcked).Get([]byte(rollout))
	if len(v) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(v))
}

// SetAcked moves that number: on when events were stored, back when they must be
// sent again.
func (t *Tx) SetAcked(rollout string, seq int64) error {
	return t.tx.Bucket(bucketAcked).Put([]byte(rollout), binary.BigEndian.AppendUint64(nil, uint64(seq)))
}

// Bury keeps a refused event among the dead letters. The event itself stays
// where it is, because its number was used.
func (t *Tx) Bury(d DeadLetter) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return t.tx.Bucket(bucketDead).Put(eventKey(d.Rollout, d.Seq), raw)
}

// DeadLetters gives all dead letters, by rollout and number.
func (t *Tx) DeadLetters() ([]DeadLetter, error) {
	var all []DeadLetter
	err := t.tx.Bucket(bucketDead).ForEach(func(k, v []byte) error {
		var d DeadLetter
		if err := json.Unmarshal(v, &d); err != nil {
			return fmt.Errorf("read dead letter: %w", err)
		}
		all = append(all, d)
		return nil
	})
	return all, err
}

// Document gives an accepted document by its name (a rollout's id for its
// manifest), and whether there is one.
func (t *Tx) Document(name string) (Document, bool, error) {
	var d Document
	ok, err := t.get(bucketDocuments, []byte(name), &d)
	return d, ok, err
}

// PutDocument stores an accepted document.
func (t *Tx) PutDocument(name string, d Document) error {
	return t.put(bucketDocuments, []byte(name), d)
}

// DropDocument removes a document.
func (t *Tx) DropDocument(name string) error {
	return t.tx.Bucket(bucketDocuments).Delete([]byte(name))
}

func (t *Tx) get(bucket, key []byte, v any) (bool, error) {
	raw := t.tx.Bucket(bucket).Get(key)
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("read %s %s: %w", bucket, key, err)
	}
	return true, nil
}

func (t *Tx) put(bucket, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s %s: %w", bucket, key, err)
	}
	b := t.tx.Bucket(bucket)
	if t.journal.foreign.has(bucket, key) {
		if raw, err = graft(b.Get(key), raw, v); err != nil {
			return fmt.Errorf("write %s %s: %w", bucket, key, err)
		}
	}
	return b.Put(key, raw)
}

// An event's key is its rollout, a zero byte (which no rollout id holds) and the
// number, so that a cursor walks a rollout in order.
func eventPrefix(rollout string) []byte { return append([]byte(rollout), 0) }

func eventKey(rollout string, seq int64) []byte {
	return binary.BigEndian.AppendUint64(eventPrefix(rollout), uint64(seq))
}
