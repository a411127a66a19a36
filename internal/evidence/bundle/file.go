package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxSize bounds what is read of a bundle, in bytes, whatever it claims to unpack
// to.
const maxSize = 1 << 30

// errTooLarge: an archive that unpacks to more than anybody exports.
var errTooLarge = fmt.Errorf("%w: it is larger than %d MiB", ErrNotABundle, maxSize>>20)

// Write writes the bundle: as an archive when the path ends with .tar.gz or .tgz,
// else as a new folder. What is there already is not replaced.
func (b Bundle) Write(path string) error {
	if strings.HasSuffix(path, ".tar.gz") || strings.HasSuffix(path, ".tgz") {
		return b.writeArchive(path)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	for name, data := range b {
		file := filepath.Join(path, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b Bundle) writeArchive(file string) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	zipped := gzip.NewWriter(f)
	archive := tar.NewWriter(zipped)
	defer func() {
		err = errors.Join(err, archive.Close(), zipped.Close(), f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	folder := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".tgz"), ".tar.gz")
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(b)) {
		header := &tar.Header{Name: folder + "/" + name, Mode: 0o644, Size: int64(len(b[name])), ModTime: now, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(b[name]); err != nil {
			return err
		}
	}
	return nil
}

// Read reads a bundle, from a folder or an archive. Its contents are not verified.
func Read(path string) (Bundle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var b Bundle
	if info.IsDir() {
		b, err = readFolder(path)
	} else {
		b, err = readArchive(path)
	}
	if err == nil && len(b.Hosts()) == 0 {
		err = fmt.Errorf("%w: it holds no host's %s", ErrNotABundle, recordsName)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func readFolder(path string) (Bundle, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b, left := Bundle{}, int64(maxSize)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return b.take(name, f, &left)
	})
	return b, err
}

func readArchive(file string) (Bundle, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotABundle, err)
	}
	b, left := Bundle{}, int64(maxSize)
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotABundle, err)
		}
		// Below the archive's one folder, whatever that is called.
		_, name, below := strings.Cut(path.Clean(header.Name), "/")
		if header.Typeflag != tar.TypeReg || !below {
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, fmt.Errorf("%w: %.200q leads out of it", ErrNotABundle, header.Name)
		}
		if _, twice := b[name]; twice {
			return nil, fmt.Errorf("%w: %s is in it twice", ErrNotABundle, name)
		}
		if err := b.take(name, archive, &left); err != nil {
			return nil, err
		}
	}
}

// take reads a file into the bundle.
func (b Bundle) take(name string, from io.Reader, left *int64) error {
	var data bytes.Buffer
	n, err := io.Copy(&data, io.LimitReader(from, *left+1))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotABundle, name, err)
	}
	if *left -= n; *left < 0 {
		return errTooLarge
	}
	b[name] = data.Bytes()
	return nil
}
