package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/trust"
)

func keyFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata/keys", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// The files were made with openssl and ssh-keygen; what they hold is known by
// its content, whatever the file is called.
func TestLoadSigner(t *testing.T) {
	for name, algorithm := range map[string]string{
		"ed25519.pkcs8.pem":           trust.Ed25519,
		"ed25519.openssh":             trust.Ed25519,
		"ed25519.seed.raw":            trust.Ed25519,
		"ed25519.seed-and-public.raw": trust.Ed25519,
		"p256.pkcs8.pem":              trust.ECDSAP256,
		"p256.params-and-sec1.pem":    trust.ECDSAP256,
		"p256.openssh":                trust.ECDSAP256,
	} {
		s, err := trust.LoadSigner(keyFile(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Public().Algorithm != algorithm {
			t.Errorf("%s is %s", name, s.Public().Algorithm)
		}
		msg := []byte("message")
		sig, err := s.Sign(msg)
		if err != nil || len(sig) != 64 {
			t.Fatalf("%s: %d bytes, %v", name, len(sig), err)
		}
		if !s.Public().Verify(msg, sig) || s.Public().Verify([]byte("other"), sig) {
			t.Errorf("%s: the signature does not verify, or verifies all", name)
		}
	}
}

// All forms of one key are one key.
func TestFormsOfOneKey(t *testing.T) {
	id := func(name string) string {
		s, err := trust.LoadSigner(keyFile(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return s.Public().ID()
	}
	for _, name := range []string{"ed25519.seed.raw", "ed25519.seed-and-public.raw"} {
		if id(name) != id("ed25519.pkcs8.pem") {
			t.Errorf("%s is another key", name)
		}
	}
	if id("p256.pkcs8.pem") != id("p256.params-and-sec1.pem") {
		t.Error("the forms of the P-256 key differ")
	}
	for private, public := range map[string]string{"ed25519.openssh": "ed25519.openssh.pub", "p256.openssh": "p256.openssh.pub"} {
		parsed, _, _, _, err := ssh.ParseAuthorizedKey(keyFile(t, public))
		if err != nil {
			t.Fatal(err)
		}
		s, err := trust.LoadSigner(keyFile(t, private))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(parsed.Marshal(), s.Public().Public) {
			t.Errorf("%s is not the key of %s", private, public)
		}
	}
	if s, err := trust.LoadSigner(keyFile(t, "ed25519.seed.raw")); err != nil || !bytes.Equal(s.Public().Public, keyFile(t, "ed25519.pub.raw")) {
		t.Error("the public key of the raw seed is not the one that openssl makes")
	}
}

func TestLoadSignerRefuses(t *testing.T) {
	seed := keyFile(t, "ed25519.seed.raw")
	damaged := bytes.Clone(keyFile(t, "ed25519.seed-and-public.raw"))
	damaged[63] ^= 1
	for name, c := range map[string]struct {
		content []byte
		why     string
	}{
		"nothing":             {nil, "text, but no PEM block"},
		"encrypted PKCS#8":    {keyFile(t, "encrypted.pkcs8.pem"), "is encrypted"},
		"encrypted SEC 1":     {keyFile(t, "encrypted.sec1.pem"), "is encrypted"},
		"encrypted OpenSSH":   {keyFile(t, "encrypted.openssh"), "is encrypted"},
		"RSA":                 {keyFile(t, "rsa.pkcs1.pem"), "ed25519 and P-256 are used"},
		"RSA in PKCS#8":       {keyFile(t, "rsa.pkcs8.pem"), "ed25519 and P-256 are used"},
		"RSA in OpenSSH":      {keyFile(t, "rsa.openssh"), "ed25519 and P-256 are used"},
		"P-384":               {keyFile(t, "p384.sec1.pem"), "only P-256 is used"},
		"public key":          {keyFile(t, "ed25519.public.pem"), "no private key"},
		"two keys":            {keyFile(t, "two.pem"), "more than one private key"},
		"damaged PEM":         {bytes.Replace(keyFile(t, "ed25519.pkcs8.pem"), []byte("MC4C"), []byte("MC5C"), 1), "PRIVATE KEY"},
		"PEM cut off":         {keyFile(t, "ed25519.pkcs8.pem")[:60], "no private key"},
		"seed in hex":         {[]byte(hex.EncodeToString(seed)), "text, but no PEM block"},
		"32 bytes of text":    {[]byte("correct horse battery staple!!!\n"), "text, but no PEM block"},
		"seed and a newline":  {append(bytes.Clone(seed), '\n'), "33 bytes are neither"},
		"seed of 31 bytes":    {seed[:31], "31 bytes are neither"},
		"another public half": {damaged, "not a seed and its public key"},
		"two seeds":           {append(bytes.Clone(seed), seed...), "not a seed and its public key"},
	} {
		s, err := trust.LoadSigner(c.content)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, %v; want %q", name, s, err, c.why)
		}
	}
}

func TestNewSignerRefuses(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []any{nil, "key", p224} {
		if s, err := trust.NewSigner(private); err == nil {
			t.Errorf("%T is taken as %v", private, s)
		}
	}
}

// Nothing is signed that nobody would take.
func TestSignDocumentRefuses(t *testing.T) {
	s := newSigner(t)
	for _, doc := range []string{``, `[]`, `{"a":1.5}`, `{"a":1,"a":1}`} {
		if sig, err := trust.SignDocument([]byte(doc), s); err == nil {
			t.Errorf("%s is signed: %x", doc, sig)
		}
	}
}
