// Package journal is the agent's durable memory: one transactional file that
// holds what the host is doing in each rollout, the signed events that report
// it, and what must never be forgotten across a crash.
//
// It promises that a commit is on disk, whole, when Update returns nil, and that
// nothing of it is there when Update returns an error; that an event, once
// appended, is never changed or dropped before the control plane has stored it;
// and that fields which a newer program wrote into a record survive an older
// program's rewriting of that record.
//
// It needs one writer: the agent's reducer is the only caller of Update. Readers
// may call View at any time and see one commit as a whole.
//
// It never interprets a record, never numbers or signs an event, and never does
// anything but file I/O.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"nixfleet/internal/crashpoint"
	"nixfleet/internal/durable"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another holder of the file: a guard
// that reads it, or an agent that is just ending.
const lockTimeout = 5 * time.Second

// Buckets. Each holds one kind of record; see tx.go for keys and values.
var (
	bucketSelf      = []byte("self")
	bucketRollouts  = []byte("rollouts")
	bucketEvents    = []byte("events")
	bucketAcked     = []byte("acked")
	bucketDead      = []byte("dead")
	bucketDocuments = []byte("documents")

	buckets = [][]byte{bucketSelf, bucketRollouts, bucketEvents, bucketAcked, bucketDead, bucketDocuments}
)

// ErrLocked means that another process holds the journal.
var ErrLocked = errors.New("the journal is in use by another process")

// Journal is an open journal.
type Journal struct {
	db      *bbolt.DB
	foreign foreignFields

	commits atomic.Int64 // that succeeded
	took    atomic.Int64 // nanoseconds, of all of them
}

// Commits is how many there were since the journal was opened, and how long they
// took in all.
func (j *Journal) Commits() (n int64, took time.Duration) {
	return j.commits.Load(), time.Duration(j.took.Load())
}

// Open opens the journal at path, and creates it, durably, when there is none.
// A file that is damaged gives an error, or, worse, a fault that nothing in this
// process can catch: let another process run Check first.
func Open(path string) (*Journal, error) {
	_, statErr := os.Stat(path)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoStatistics: true})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	j := &Journal{db: db}
	if err := j.prepare(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if errors.Is(statErr, os.ErrNotExist) {
		// The file's name must be as durable as its first commit.
		if err := durable.SyncDir(filepath.Dir(path)); err != nil {
			db.Close()
			return nil, err
		}
	}
	return j, nil
}

// prepare creates the buckets that are missing and looks for fields that this
// program does not know.
func (j *Journal) prepare() error {
	missing := false
	err := j.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			missing = missing || tx.Bucket(name) == nil
		}
		return nil
	})
	if err != nil {
		return err
	}
	if missing { // only then: an idle restart writes nothing
		err = j.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return j.View(func(t *Tx) error { return j.foreign.scan(t) })
}

// View calls fn with the latest commit. What fn is given is valid only until it
// returns.
func (j *Journal) View(fn func(*Tx) error) error {
	return j.db.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx: tx, journal: j}) })
}

// Update calls fn with a transaction and commits it when fn returns nil. When
// Update returns an error nothing was changed.
func (j *Journal) Update(fn func(*Tx) error) error {
	begun := time.Now()
	err := j.db.Update(func(tx *bbolt.Tx) error {
		err := fn(&Tx{tx: tx, journal: j})
		crashpoint.Here("journal/prepared", "nothing of a transaction whose changes are all made is on the disk")
		return err
	})
	if err == nil {
		j.commits.Add(1)
		j.took.Add(int64(time.Since(begun)))
		crashpoint.Here("journal/committed", "a transaction is on the disk; nobody knows it yet")
	}
	return err
}

// Close closes the file and frees its lock.
func (j *Journal) Close() error { return j.db.Close() }

// Check reads every page of the file at path and returns an error when it is
// damaged. On some damage the runtime kills the process, beyond any recover: run
// it in a child process and read any bad end as damage. A missing or empty file,
// which a crash at creation leaves, is sound.
func Check(path string) error {
	if st, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || err == nil && st.Size() == 0 {
		return nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("check %s: %w", path, ErrLocked)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		var first error
		for err := range tx.Check() { // drained to its end, or its goroutine would stay
			if first == nil {
				first = err
			}
		}
		return first
	})
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	return nil
}

// Read calls fn with the latest commit of the file at path, without ever writing
// to it. What Check says about damage holds here as well. ErrLocked: somebody has
// it open.
func Read(path string, fn func(*Tx) error) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("read %s: %w", path, ErrLocked)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer db.Close()
	return (&Journal{db: db}).View(fn)
}

// MoveAside renames a damaged journal so that a new one can be begun and the old
// one can be looked at, and returns its new name.
func MoveAside(path string, now time.Time) (string, error) {
	aside := path + ".damaged-" + now.UTC().Format("20060102T150405.000Z")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, durable.SyncDir(filepath.Dir(path))
}
