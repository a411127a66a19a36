package nix

import "testing"

// FuzzKeys: a key of a cache comes back from its text as it went, and a public one
// is never a secret one.
func FuzzKeys(f *testing.F) {
	secret := testKey(f, "cache-1")
	for _, text := range []string{
		secret.Text(), secret.Public().String(), secret.Text() + "\n", " " + secret.Public().String(),
		"cache-1:", ":AAAA", "cache-1:AAAA", "a b:AAAA", secret.Public().String() + "=", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		public, err := ParsePublicKey(text)
		if err == nil {
			if again, err := ParsePublicKey(public.String()); err != nil || again.String() != public.String() || again.Name != public.Name {
				t.Fatalf("%q came back as %q: %v", public, again, err)
			}
		}
		secret, secretErr := ParseSecretKey(text)
		if secretErr != nil {
			return
		}
		if err == nil {
			t.Fatalf("%q is public and secret", text)
		}
		again, err := ParseSecretKey(secret.Text())
		if err != nil || again.Text() != secret.Text() {
			t.Fatalf("a secret key came back otherwise: %v", err)
		}
	})
}
