package issuer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"nixfleet/internal/durable"
)

// The roles in the log. A server has none in its certificate.
const (
	roleAgent    = "agent"
	roleOperator = "operator"
	roleServer   = "server"
)

// entry is one line of the audit log.
type entry struct {
	Time           time.Time `json:"time"`
	Serial         string    `json:"serial"`         // hex
	KeyFingerprint string    `json:"keyFingerprint"` // as in tokens and revocations
	Role           string    `json:"role"`
	Name           string    `json:"name"`
	NotAfter       time.Time `json:"notAfter"`
	Requester      string    `json:"requester"`
}

// log is a file of JSON lines. It is opened for each line, so that it may be
// rotated by renaming it.
type log struct {
	mu   sync.Mutex // one line after the other
	file string
}

// append writes a line, and returns when it is on disk.
func (l *log) append(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil && info.Size() == 0 { // it is new, and so is its name
		err = durable.SyncDir(filepath.Dir(l.file))
	}
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}
