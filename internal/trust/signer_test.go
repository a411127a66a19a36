package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

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

// Line ends of any kind, around text, are no part of the key.
func TestLoadSignerOfText(t *testing.T) {
	seed, pair := keyFile(t, "ed25519.seed.raw"), keyFile(t, "ed25519.seed-and-public.raw")
	text := string(keyFile(t, "ed25519.pkcs8.pem"))
	want, err := trust.LoadSigner([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	crlf := strings.NewReplacer("\n", "\r\n")
	for name, content := range map[string]string{
		"seed in base64":                base64.StdEncoding.EncodeToString(seed),
		"seed in base64, a newline":     base64.StdEncoding.EncodeToString(seed) + "\n",
		"seed in base64, CRLF":          base64.StdEncoding.EncodeToString(seed) + "\r\n",
		"seed and public key in base64": base64.StdEncoding.EncodeToString(pair) + "\n",
		"PEM with CRLF":                 crlf.Replace(text),
		"PEM and blank lines":           "\n" + text + "\n\n",
		"PEM without its last newline":  strings.TrimSpace(text),
	} {
		s, err := trust.LoadSigner([]byte(content))
		if err != nil || s.Public().ID() != want.Public().ID() {
			t.Errorf("%s: %v", name, err)
		}
	}
	openssh := crlf.Replace(string(keyFile(t, "ed25519.openssh")))
	if _, err := trust.LoadSigner([]byte(openssh)); err != nil {
		t.Errorf("OpenSSH with CRLF: %v", err)
	}
}

// Each is refused with what it is and what to do.
func TestLoadSignerRefuses(t *testing.T) {
	seed, pair := keyFile(t, "ed25519.seed.raw"), keyFile(t, "ed25519.seed-and-public.raw")
	damaged := bytes.Clone(pair)
	damaged[63] ^= 1
	pemKey := keyFile(t, "ed25519.pkcs8.pem")
	block, _ := pem.Decode(pemKey)
	base := base64.StdEncoding.EncodeToString
	const newKey = "make a key with: openssl genpkey"
	for name, c := range map[string]struct {
		content []byte
		why     string
	}{
		"nothing":                 {nil, "it is empty; " + newKey},
		"blank lines":             {[]byte("\r\n\n"), "it is empty; " + newKey},
		"encrypted PKCS#8":        {keyFile(t, "encrypted.pkcs8.pem"), "it is encrypted; decrypt a copy with: openssl pkey"},
		"encrypted SEC 1":         {keyFile(t, "encrypted.sec1.pem"), "it is encrypted; decrypt a copy"},
		"encrypted OpenSSH":       {keyFile(t, "encrypted.openssh"), "ssh-keygen -p"},
		"RSA":                     {keyFile(t, "rsa.pkcs1.pem"), "an RSA PRIVATE KEY; ed25519 and P-256 are used; " + newKey},
		"RSA in PKCS#8":           {keyFile(t, "rsa.pkcs8.pem"), "an RSA key; ed25519 and P-256 are used; " + newKey},
		"RSA in OpenSSH":          {keyFile(t, "rsa.openssh"), "an RSA key; ed25519 and P-256 are used"},
		"P-384":                   {keyFile(t, "p384.sec1.pem"), "only P-256 is used; " + newKey},
		"public key":              {keyFile(t, "ed25519.public.pem"), "it holds a PUBLIC KEY; the private key is needed"},
		"public key of OpenSSH":   {keyFile(t, "ed25519.openssh.pub"), "a public key (ssh-ed25519); the private key is needed, which belongs to it: the file without .pub"},
		"P-256 key of OpenSSH":    {keyFile(t, "p256.openssh.pub"), "a public key (ecdsa-sha2-nistp256)"},
		"certificate":             {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: seed}), "it holds a CERTIFICATE; the private key"},
		"two keys":                {keyFile(t, "two.pem"), "more than one private key"},
		"damaged PEM":             {bytes.Replace(pemKey, []byte("MC4C"), []byte("MC5C"), 1), "PRIVATE KEY is damaged"},
		"PEM cut off":             {pemKey[:60], "it is cut off"},
		"PEM with a line gone":    {[]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n"), "PRIVATE KEY is damaged"},
		"PEM of no base64":        {[]byte("-----BEGIN PRIVATE KEY-----\n???\n-----END PRIVATE KEY-----\n"), "it is damaged"},
		"DER":                     {block.Bytes, "it is DER; make PEM of it with: openssl pkey -inform DER"},
		"seed in hex":             {[]byte(hex.EncodeToString(seed)), "it is 32 bytes in hex; base64 is taken"},
		"32 bytes of text":        {[]byte("correct horse battery staple!!!\n"), "neither a PEM block nor base64; " + newKey},
		"31 bytes in base64":      {[]byte(base(seed[:31])), "31 bytes are no key"},
		"seed and a newline":      {append(bytes.Clone(seed), '\n'), "a raw key of 32 bytes with a line end behind it; cut that off with: head -c 32"},
		"pair and CRLF":           {append(bytes.Clone(pair), "\r\n"...), "head -c 64"},
		"seed of 31 bytes":        {seed[:31], "31 bytes are no key: a raw ed25519 key has 32 or 64"},
		"another public half":     {damaged, "not a seed and its public key"},
		"the same in base64":      {[]byte(base(damaged)), "not a seed and its public key"},
		"a pair that is none":     {keyFile(t, "mismatched.openssh"), "its public half belongs to another key"},
		"two seeds":               {append(bytes.Clone(seed), seed...), "not a seed and its public key"},
		"secret key of a cache":   {[]byte("cache-1:" + base(pair)), "a key of a Nix binary cache"},
		"public key of a cache":   {[]byte("cache-1:" + base(seed) + "\n"), "a key of a Nix binary cache"},
		"a key out of trust.json": {[]byte(`{"algorithm": "ed25519", "public": "` + base(seed) + `"}`), "neither a PEM block nor base64"},
	} {
		s, err := trust.LoadSigner(c.content)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, %v; want %q", name, s, err, c.why)
		}
	}
}

func TestParsePublic(t *testing.T) {
	for public, private := range map[string]string{
		"ed25519.public.pem":  "ed25519.pkcs8.pem",
		"ed25519.openssh.pub": "ed25519.openssh",
		"p256.openssh.pub":    "p256.openssh",
	} {
		key, err := trust.ParsePublic(keyFile(t, public))
		if err != nil {
			t.Errorf("%s: %v", public, err)
			continue
		}
		s, err := trust.LoadSigner(keyFile(t, private))
		if err != nil {
			t.Fatal(err)
		}
		if key.ID() != s.Public().ID() {
			t.Errorf("%s is %s, %s has %s", public, key.ID(), private, s.Public().ID())
		}
	}
	line := string(keyFile(t, "ed25519.openssh.pub"))
	for name, c := range map[string]struct{ content, why string }{
		"nothing":       {"", "neither a PEM block"},
		"a private key": {string(keyFile(t, "ed25519.pkcs8.pem")), "holds a PRIVATE KEY"},
		"two lines":     {line + line, "one line of OpenSSH"},
		"two blocks":    {string(keyFile(t, "ed25519.public.pem")) + "x", "one PUBLIC KEY is needed"},
		"damaged":       {"-----BEGIN PUBLIC KEY-----\nMC4C\n-----END PUBLIC KEY-----\n", "PUBLIC KEY is damaged"},
	} {
		if key, err := trust.ParsePublic([]byte(c.content)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, %v; want %q", name, key, err, c.why)
		}
	}
}

// A key that is taken signs, in every form in which it is written again.
func FuzzLoadSigner(f *testing.F) {
	files, err := filepath.Glob("testdata/keys/*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no key files: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
		f.Add([]byte(base64.StdEncoding.EncodeToString(content)))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if public, err := trust.ParsePublic(content); err == nil {
			if _, err := trust.LoadSigner(content); err == nil {
				t.Fatalf("it is a public and a private key: %q", content)
			}
			if id := public.ID(); !strings.HasPrefix(id, public.Algorithm+":") {
				t.Errorf("id %s", id)
			}
		}
		s, err := trust.LoadSigner(content)
		if err != nil {
			return
		}
		msg := []byte("message")
		sig, err := s.Sign(msg)
		if err != nil || !s.Public().Verify(msg, sig) {
			t.Fatalf("its own signature does not verify: %v", err)
		}
		for _, same := range [][]byte{bytes.TrimSpace(content), bytes.ReplaceAll(content, []byte("\n"), []byte("\r\n"))} {
			raw := len(content) == ed25519.SeedSize || len(content) == ed25519.PrivateKeySize
			if raw || !utf8.Valid(content) || bytes.ContainsRune(content, '\r') {
				break // bytes, or line ends that are no text's
			}
			again, err := trust.LoadSigner(same)
			if err != nil || again.Public().ID() != s.Public().ID() {
				t.Errorf("with other line ends it is another key: %v", err)
			}
		}
	})
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
