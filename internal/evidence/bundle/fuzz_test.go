package bundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"nixfleet/internal/evidence/bundle"
)

// FuzzFiles: of a host's files, whatever is in them, nothing is proven that the
// host did not sign.
func FuzzFiles(f *testing.F) {
	b, public := made(f, records(f, 4)), key.Public().(ed25519.PublicKey)
	good := b["web-01/records.jsonl"]
	f.Add(good, b["web-01/signatures"])
	f.Add(good, []byte(nil))
	f.Add([]byte(nil), b["web-01/signatures"])
	f.Add(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), b["web-01/signatures"])
	f.Fuzz(func(t *testing.T, records, signatures []byte) {
		changed := bundle.Bundle{"web-01/records.jsonl": records, "web-01/signatures": signatures}
		proven, err := changed.Verify("web-01", bundle.Expect{Key: public})
		if err == nil && !bytes.HasPrefix(good, records) {
			t.Fatalf("the host signed no\n%s", records)
		}
		if err != nil && proven.Records > 0 && len(records) == 0 {
			t.Fatalf("%d records are proven of none", proven.Records)
		}
		if proven.Records > bytes.Count(good, []byte("\n")) {
			t.Fatalf("%d records are proven", proven.Records)
		}
		if _, err := changed.Verify("web-01", bundle.Expect{Key: make([]byte, ed25519.PublicKeySize)}); err == nil && len(records) > 0 {
			t.Fatal("it is good for any key")
		}
	})
}

// FuzzArchive: what is read of an archive stays inside a folder, and comes back
// from one as it went.
func FuzzArchive(f *testing.F) {
	b := made(f, records(f, 4))
	add := func(names ...string) {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, name := range names {
			content := b["web-01/records.jsonl"]
			if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}), func() error { _, err := w.Write(content); return err }()); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Bytes())
	}
	add("b/web-01/records.jsonl", "b/web-01/signatures", "b/README.md")
	add("b/web-01/records.jsonl", "b/web-01/records.jsonl")
	add("b/../../web-01/records.jsonl", "../../../etc/cron.d/x")
	add("/web-01/records.jsonl", "b/web-01/records.jsonl")
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		if _, err := z.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "in.tgz")
		if err := os.WriteFile(file, zipped.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Read(file)
		if err != nil {
			return
		}
		for name := range b {
			if !filepath.IsLocal(name) {
				t.Fatalf("%q is outside", name)
			}
		}
		if len(b.Hosts()) == 0 {
			t.Fatal("a bundle of nobody")
		}
		out := filepath.Join(dir, "out.tgz")
		if err := b.Write(out); err != nil {
			return // a name that no archive holds
		}
		back, err := bundle.Read(out)
		if err != nil || !maps.EqualFunc(b, back, bytes.Equal) {
			t.Fatalf("it came back otherwise: %v", err)
		}
	})
}
