package fleetdir_test

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
)

func create(t *testing.T) fleetdir.Folder {
	t.Helper()
	f, err := fleetdir.Create(filepath.Join(t.TempDir(), "fleet"), fleetdir.Options{
		Names: []string{"fleet.example.org", "127.0.0.1"}, URL: "https://fleet.example.org", Operator: "ada", Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTrustPinsWhatTheFolderSignsWith(t *testing.T) {
	f := create(t)
	roots, err := trust.LoadRoots(f.Trust())
	if err != nil {
		t.Fatal(err)
	}
	if len(roots.Warnings) > 0 || len(roots.CacheKeys) != 1 || roots.OrgRootKey == nil {
		t.Errorf("%+v", roots)
	}
	for path, slot := range map[string]trust.Slot{f.CIKey(): roots.CIReleaseKey, f.OrgRootKey(): *roots.OrgRootKey} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := trust.LoadSigner(content)
		if err != nil {
			t.Fatal(err)
		}
		if signer.Public().ID() != slot.Current.ID() {
			t.Errorf("%s is not pinned", path)
		}
	}
}

func TestCertificatesAreGoodForWhatTheyAre(t *testing.T) {
	f := create(t)
	caPem, err := os.ReadFile(f.CACert())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPem)
	server, err := tls.LoadX509KeyPair(f.ServerCert(), f.ServerKey())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fleet.example.org", "127.0.0.1"} {
		if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Error(err)
		}
	}
	operator, err := tls.LoadX509KeyPair(f.OperatorCert(), f.OperatorKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.VerifyClient([]*x509.Certificate{operator.Leaf}, pool, time.Now()); err != nil {
		t.Error(err)
	}
	if role, ok := identity.RoleOf(operator.Leaf); !ok || role != (identity.Role{Kind: identity.Operator, Name: "ada"}) {
		t.Errorf("role %v", role)
	}
}

func TestSecretsAreTheOwnersOnly(t *testing.T) {
	f := create(t)
	secrets := 0
	err := filepath.WalkDir(string(f), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if strings.HasSuffix(path, ".key") {
			secrets++
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %s", path, info.Mode())
			}
		}
		return err
	})
	if err != nil || secrets != 6 {
		t.Errorf("%d secrets, %v", secrets, err)
	}
}

func TestTheExampleFleetIsGood(t *testing.T) {
	doc, err := os.ReadFile(create(t).Fleet())
	if err != nil {
		t.Fatal(err)
	}
	var f fleet.Fleet
	if err := json.Unmarshal(doc, &f); err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(); err != nil {
		t.Error(err)
	}
	if len(f.Hosts) == 0 {
		t.Error("it has no hosts")
	}
}

func TestNothingIsWrittenOver(t *testing.T) {
	f := create(t)
	if _, err := fleetdir.Create(string(f), fleetdir.Options{Names: []string{"x"}, Operator: "ada", Now: time.Now()}); err == nil {
		t.Error("it wrote into a folder that holds something")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fleetdir.Create(file, fleetdir.Options{Names: []string{"x"}, Operator: "ada", Now: time.Now()}); err == nil {
		t.Error("it took a file for a folder")
	}
}
