package nix

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"nixfleet/internal/durable"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// CacheDir is a folder that any static web server serves as a binary cache.
type CacheDir struct {
	dir         string
	key         SecretKey
	compression string
}

// CreateCacheDir prepares the folder, which may be a cache already. What is added
// is signed by the key. Compression is none, xz or zstd.
func CreateCacheDir(dir string, key SecretKey, compression string) (*CacheDir, error) {
	if err := os.MkdirAll(filepath.Join(dir, "nar"), 0o755); err != nil {
		return nil, err
	}
	info := []byte("StoreDir: " + StoreDir + "\nWantMassQuery: 1\nPriority: 30\n")
	if err := durable.WriteFile(filepath.Join(dir, "nix-cache-info"), info, 0o644); err != nil {
		return nil, err
	}
	return &CacheDir{dir: dir, key: key, compression: compression}, nil
}

// Add puts a tree into the cache, under a store path that is named by its
// contents, and returns the path's base name. References are the base names of
// other paths of the cache that the tree needs.
func (c *CacheDir) Add(name, tree string, references ...string) (base string, err error) {
	n := &NarInfo{Compression: c.compression, References: references}
	tmp, err := c.writeNar(n, tree)
	if err != nil {
		return "", fmt.Errorf("add %s to the cache: %w", name, err)
	}
	if n.Base, err = ContentBase(n.NarHash, name); err != nil {
		return "", errors.Join(err, os.Remove(tmp))
	}
	n.Sign(c.key)
	if err := os.Rename(tmp, filepath.Join(c.dir, n.URL)); err != nil {
		return "", err
	}
	// Last, because a narinfo without its archive would be a broken promise.
	return n.Base, durable.WriteFile(filepath.Join(c.dir, PathHash(n.Base)+".narinfo"), n.Format(), 0o644)
}

// writeNar writes the compressed archive to a temporary file beside its place,
// and fills in what the narinfo says about it.
func (c *CacheDir) writeNar(n *NarInfo, tree string) (tmp string, err error) {
	f, err := os.CreateTemp(filepath.Join(c.dir, "nar"), ".new-*")
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name()) // the first error is the one to tell
		}
	}()
	fileSum, narSum := sha256.New(), sha256.New()
	var fileSize, narSize count
	z, extension, err := compress(c.compression, io.MultiWriter(f, fileSum, &fileSize))
	if err != nil {
		return "", err
	}
	err = Pack(io.MultiWriter(z, narSum, &narSize), tree)
	if err = errors.Join(err, z.Close(), f.Chmod(0o644), f.Sync()); err != nil {
		return "", err
	}
	fileHash := Hash(fileSum.Sum(nil))
	n.NarHash, n.NarSize = Hash(narSum.Sum(nil)), int64(narSize)
	n.FileHash, n.FileSize = fileHash.String(), int64(fileSize)
	n.URL = "nar/" + EncodeBase32(fileHash[:]) + ".nar" + extension
	return f.Name(), nil
}

func compress(name string, w io.Writer) (z io.WriteCloser, extension string, err error) {
	switch name {
	case "none":
		return nopWriteCloser{w}, "", nil
	case "xz":
		z, err = xz.NewWriter(w)
		return z, ".xz", err
	case "zstd":
		z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		return z, ".zst", err
	}
	return nil, "", fmt.Errorf("compression %q: want none, xz or zstd", name)
}

type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }
