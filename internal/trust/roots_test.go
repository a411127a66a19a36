package trust_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/trust"
)

// invalid calls check with each file of a folder of broken examples, and with
// the text that its error must hold.
func invalid(t *testing.T, folder string, least int, check func(t *testing.T, path string, doc []byte) error) {
	files, err := filepath.Glob(filepath.Join("testdata/invalid", folder, "*.json"))
	if err != nil || len(files) < least {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(path, ".json")
		t.Run(filepath.Base(name), func(t *testing.T) {
			doc, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(name + ".err")
			if err != nil {
				t.Fatal(err)
			}
			if err := check(t, path, doc); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(string(want), "\n")) {
				t.Errorf("%v\nwant %s", err, want)
			}
		})
	}
}

func TestInvalidRoots(t *testing.T) {
	invalid(t, "trust", 30, func(t *testing.T, path string, doc []byte) error {
		roots, err := trust.LoadRoots(path)
		if roots != nil {
			t.Errorf("roots come with the error: %+v", roots)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "trust roots "+path+": ") {
			t.Errorf("the file is not named: %v", err)
		}
		return err
	})
}

func TestInvalidManifests(t *testing.T) {
	o := newOwner(t)
	invalid(t, "manifest", 30, func(t *testing.T, _ string, doc []byte) error {
		p := pair{doc: doc, sig: make([]byte, 64)}
		if canonical, err := trust.Canonical(doc); err == nil {
			if p.sig, err = o.signer.Sign(canonical); err != nil {
				t.Fatal(err)
			}
		}
		_, err := o.verify(p, noon, trust.Mark{}, trust.Expect{})
		return err
	})
}

func TestRootsOfTheVectors(t *testing.T) {
	roots := vectorRoots(t)
	ci := roots.CIReleaseKey
	if ci.Current.Algorithm != trust.Ed25519 || ci.Previous.Algorithm != trust.ECDSAP256 || ci.Successor.Algorithm != trust.Ed25519 {
		t.Errorf("%+v", ci)
	}
	if !ci.RetireAt.Equal(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)) || !ci.RejectBefore.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", ci)
	}
	if roots.OrgRootKey == nil || roots.OrgRootKey.Current == nil || len(roots.OrgRootKey.ValidAt(noon)) != 1 {
		t.Errorf("%+v", roots.OrgRootKey)
	}
	if len(roots.CacheKeys) != 1 || roots.RootCAPem != "" || len(roots.IssuanceCAPems) != 0 || len(roots.Warnings) != 0 {
		t.Errorf("%+v", roots)
	}
	if id := ci.Current.ID(); id != "ed25519:acP12bynDoY7903wUsPye/TQrJgdwE6uhIMMYnC2zm4=" {
		t.Errorf("id %s", id)
	}
}

const oneKey = `"schemaVersion":1,"ciReleaseKey":{"current":{"algorithm":"ed25519","public":"acP12bynDoY7903wUsPye/TQrJgdwE6uhIMMYnC2zm4="}}`

func certificate(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: noon}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Once a field was spelt with other capitals, and with it went the trust anchors.
func TestRootsInBothSpellings(t *testing.T) {
	ca, other := certificate(t), certificate(t)
	for _, spelling := range []string{
		`{%s,"rootCaPem":%q,"issuanceCaPems":[%q,%q]}`,
		`{%s,"rootCAPem":%q,"issuanceCAPems":[%q,%q]}`,
		`{%s,"rootCaPem":%[2]q,"rootCAPem":%[2]q,"issuanceCAPems":[%[3]q,%[4]q]}`,
	} {
		roots, err := trust.ParseRoots(fmt.Appendf(nil, spelling, oneKey, ca+other, ca, other))
		if err != nil {
			t.Fatal(err)
		}
		if roots.RootCAPem != ca+other || !slices.Equal(roots.IssuanceCAPems, []string{ca, other}) || len(roots.Warnings) != 0 {
			t.Errorf("%+v", roots)
		}
	}
	roots, err := trust.ParseRoots([]byte(`{` + oneKey + `,"rootCaPem":null,"issuanceCaPems":null,"cacheKeys":null,"orgRootKey":null}`))
	if err != nil || roots.OrgRootKey != nil || roots.RootCAPem != "" {
		t.Errorf("%+v, %v", roots, err)
	}
}

func TestRootsWarnOfUnknownFields(t *testing.T) {
	roots, err := trust.ParseRoots([]byte(`{"RootCaPem":"x","cachekeys":[],"schemaVersion":1,"ciReleaseKey":{"rejectbefore":"2026-01-01T00:00:00Z",
		"current":{"algorithm":"ed25519","comment":"ci","public":"acP12bynDoY7903wUsPye/TQrJgdwE6uhIMMYnC2zm4="}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ciReleaseKey.current.comment: unknown field, ignored",
		"ciReleaseKey.rejectbefore: unknown field, ignored",
		"RootCaPem: unknown field, ignored",
		"cachekeys: unknown field, ignored",
	}
	if !slices.Equal(roots.Warnings, want) {
		t.Errorf("%q", roots.Warnings)
	}
}

func TestLoadRootsWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trust.json")
	_, err := trust.LoadRoots(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

// The switch itself may rotate the keys; a file that a switch broke leaves the
// host with the roots that it had.
func TestRootsFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trust.json")
	write := func(doc []byte) {
		if err := os.WriteFile(path, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := &trust.RootsFile{Path: path}
	if roots, err := file.Read(); roots != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", roots, err)
	}
	write([]byte(`{` + oneKey + `}`))
	first, err := file.Read()
	if err != nil || first == nil {
		t.Fatal(err)
	}
	if again, err := file.Read(); err != nil || again != first {
		t.Errorf("an unchanged file gave other roots, %v", err)
	}
	write(vector(t, "trust.json"))
	second, err := file.Read()
	if err != nil || second.CIReleaseKey.Successor == nil {
		t.Fatalf("%+v, %v", second, err)
	}
	write([]byte(`{`))
	if kept, err := file.Read(); kept != second || err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, %v", kept, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if kept, err := file.Read(); kept != second || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", kept, err)
	}
}

// FuzzParseRoots: what is taken can verify, and never holds a key that cannot.
func FuzzParseRoots(f *testing.F) {
	f.Add(vector(f, "trust.json"))
	f.Add([]byte(`{` + oneKey + `,"x":[1],"rootCAPem":null}`))
	files, err := filepath.Glob("testdata/invalid/trust/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		doc, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		roots, err := trust.ParseRoots(doc)
		if err != nil {
			if roots != nil {
				t.Errorf("%+v comes with %v", roots, err)
			}
			return
		}
		slot := roots.CIReleaseKey
		if slot.Current == nil && slot.Previous == nil && slot.Successor == nil {
			t.Error("no CI key")
		}
		slots := []trust.Slot{slot}
		if roots.OrgRootKey != nil {
			slots = append(slots, *roots.OrgRootKey)
		}
		for _, s := range slots {
			for _, k := range s.ValidAt(time.Time{}) {
				if k.Algorithm == trust.Ed25519 && len(k.Public) != 32 || k.Algorithm == trust.ECDSAP256 && len(k.Public) != 64 {
					t.Errorf("key %s", k.ID())
				}
				if k.Verify([]byte("message"), make([]byte, 64)) && k.Algorithm == trust.ECDSAP256 {
					t.Errorf("%s verifies zeros", k.ID())
				}
			}
		}
	})
}
