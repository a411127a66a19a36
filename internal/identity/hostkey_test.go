package identity_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixfleet/internal/identity"
)

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func hostKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := identity.LoadHostKey("testdata/vectors/ssh_host_ed25519_key")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestHostKeyVector(t *testing.T) {
	var want struct{ HostKeyFingerprint string }
	if err := json.Unmarshal(read(t, "testdata/vectors/hashes.json"), &want); err != nil {
		t.Fatal(err)
	}
	line := string(read(t, "testdata/vectors/ssh_host_ed25519_key.pub"))
	public, err := identity.ParsePublicKey(line)
	if err != nil {
		t.Fatal(err)
	}
	if !public.Equal(publicOf(hostKey(t))) {
		t.Error("the two halves differ")
	}
	if got := identity.Fingerprint(public); got != want.HostKeyFingerprint {
		t.Errorf("fingerprint %s, want %s", got, want.HostKeyFingerprint)
	}
	if got := identity.FormatPublicKey(public, "web-01"); got != strings.TrimSpace(line) {
		t.Errorf("%q, want %q", got, line)
	}
}

// TestHostKeyOfPKCS8: as openssl writes it.
func TestHostKeyOfPKCS8(t *testing.T) {
	key, err := identity.ParseHostKey(read(t, "testdata/vectors/org-root.key.pem"))
	if err != nil || len(key) != ed25519.PrivateKeySize {
		t.Errorf("%d bytes, %v", len(key), err)
	}
}

// TestRemedyWorks: the command in the error makes a key that is taken.
func TestRemedyWorks(t *testing.T) {
	_, err := identity.ParseHostKey(nil)
	_, command, ok := strings.Cut(err.Error(), "make one with: ")
	if !ok {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	command = strings.Replace(command, "/etc/ssh/ssh_host_ed25519_key", file, 1)
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	if _, err := identity.LoadHostKey(file); err != nil {
		t.Error(err)
	}
}

func TestInvalidHostKeys(t *testing.T) {
	eachInvalid(t, "hostkey", ".key", func(data []byte) error {
		_, err := identity.ParseHostKey(data)
		if err != nil && (!errors.Is(err, identity.ErrHostKey) || !strings.Contains(err.Error(), "ssh-keygen -t ed25519")) {
			t.Errorf("no remedy in: %v", err)
		}
		return err
	})
}

func TestInvalidPublicKeys(t *testing.T) {
	good := strings.TrimSpace(string(read(t, "testdata/vectors/ssh_host_ed25519_key.pub")))
	for _, line := range []string{
		"", "ssh-ed25519", "ssh-ed25519 AAAA", good + "\n" + good, "no-pty " + good,
		"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=",
	} {
		if key, err := identity.ParsePublicKey(line); err == nil {
			t.Errorf("%q is %x", line, key)
		}
	}
}

func FuzzParseHostKey(f *testing.F) {
	f.Add(read(f, "testdata/vectors/ssh_host_ed25519_key"))
	seedInvalid(f, "hostkey", ".key")
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := identity.ParseHostKey(data)
		if err != nil {
			if !errors.Is(err, identity.ErrHostKey) {
				t.Errorf("an error without a type: %v", err)
			}
			return
		}
		if len(key) != ed25519.PrivateKeySize {
			t.Fatalf("a key of %d bytes", len(key))
		}
		msg := []byte("message")
		if !ed25519.Verify(publicOf(key), msg, ed25519.Sign(key, msg)) {
			t.Error("its signature does not verify")
		}
		text, err := identity.EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := identity.ParseHostKey(text); err != nil || !again.Equal(key) {
			t.Errorf("it came back otherwise: %v", err)
		}
	})
}
