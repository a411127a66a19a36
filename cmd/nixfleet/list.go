package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nixfleet/internal/trust"
)

// lockList keeps others from changing the lists of a folder until unlock is called:
// two hosts that are added at once are both in the list.
func lockList(path string) (unlock func(), err error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", folder.Name(), errors.Join(err, folder.Close()))
	}
	return func() { folder.Close() }, nil // which ends the lock, and nothing was written
}

// amendList reads the document of a signed list, which need not be there yet, and
// gives its text with the entries of a member changed. What else is in it stays as
// it is, also in entries.
func amendList(path, member string, change func(entries []json.RawMessage) ([]json.RawMessage, error)) ([]byte, error) {
	doc := map[string]json.RawMessage{"schemaVersion": json.RawMessage("1")}
	var entries []json.RawMessage
	raw, err := os.ReadFile(path)
	if err == nil {
		// Nothing that no signature could be made of is carried on.
		if _, err = trust.Canonical(raw); err == nil {
			err = json.Unmarshal(raw, &doc)
		}
		if list, ok := doc[member]; ok && err == nil {
			err = json.Unmarshal(list, &entries)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if entries, err = change(entries); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, member, err)
	}
	if doc[member], err = json.Marshal(entries); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	return append(text, '\n'), err
}
