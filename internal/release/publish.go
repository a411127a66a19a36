package release

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nixfleet/internal/durable"
)

// pair is a signed document on its way into the published folder.
type pair struct {
	name     string // path below the folder
	doc, sig []byte
}

// publish puts the pairs into the folder, in their order. Each is replaced as a
// whole: a reader sees the old document with its signature or the new one with
// its own, or for an instant the old document with the new signature, which does
// not verify and is read again.
func publish(folder string, pairs []pair) error {
	for _, p := range pairs {
		if err := p.publish(filepath.Join(folder, p.name)); err != nil {
			return fmt.Errorf("publish %s: %w", p.name, err)
		}
	}
	return nil
}

func (p pair) publish(path string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	sig, err := staged(dir, p.sig)
	if err != nil {
		return err
	}
	doc, err := staged(dir, p.doc)
	if err != nil {
		return errors.Join(err, os.Remove(sig))
	}
	if err := os.Rename(sig, path+".sig"); err != nil {
		return errors.Join(err, os.Remove(sig), os.Remove(doc))
	}
	if err := os.Rename(doc, path); err != nil {
		return errors.Join(err, os.Remove(doc))
	}
	return durable.SyncDir(dir)
}

// staged writes a file beside its place, durably.
func staged(dir string, data []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
