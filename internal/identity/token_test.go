package identity_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
)

// ten is the time at which the files of testdata are judged.
var ten = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func orgRoot(t testing.TB) trust.Slot {
	t.Helper()
	roots, err := trust.LoadRoots("testdata/vectors/trust.json")
	if err != nil {
		t.Fatal(err)
	}
	return *roots.OrgRootKey
}

func orgSigner(t testing.TB) trust.Signer {
	t.Helper()
	signer, err := trust.LoadSigner(read(t, "testdata/vectors/org-root.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// TestTokenVector: a token that another program made.
func TestTokenVector(t *testing.T) {
	token, err := identity.ParseToken(read(t, "testdata/vectors/token.json"))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := identity.VerifyToken(token, orgRoot(t), ten)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.LoadHostKey("testdata/vectors/ssh_host_ed25519_key")
	if err != nil {
		t.Fatal(err)
	}
	if claims.Hostname != "web-01" || claims.ExpectedPubkeyFingerprint != identity.Fingerprint(publicOf(key)) {
		t.Errorf("%+v", claims)
	}
}

// TestMintEqualsVector: the same claims and key give the vector's signature.
func TestMintEqualsVector(t *testing.T) {
	var want struct {
		Claims    identity.Claims
		Signature string
	}
	if err := json.Unmarshal(read(t, "testdata/vectors/token.json"), &want); err != nil {
		t.Fatal(err)
	}
	minted, err := identity.MintToken(want.Claims, orgSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Signature string }
	if err := json.Unmarshal(minted, &got); err != nil {
		t.Fatal(err)
	}
	if got.Signature != want.Signature {
		t.Errorf("signature %s, want %s", got.Signature, want.Signature)
	}
}

// The protocol's tokens are signed with ed25519; other programs know no other.
func TestTokensAreNotMintedWithP256(t *testing.T) {
	private, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := trust.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	claims := identity.Claims{
		Hostname: "web-01", ExpectedPubkeyFingerprint: base64.StdEncoding.EncodeToString(make([]byte, 32)),
		IssuedAt: ten, ExpiresAt: ten.Add(time.Hour), Nonce: identity.NewNonce(),
	}
	if token, err := identity.MintToken(claims, signer); !errors.Is(err, identity.ErrTokenKey) {
		t.Errorf("%s, %v", token, err)
	}
}

func TestTokenRoundTrip(t *testing.T) {
	claims := identity.Claims{
		Hostname:                  "web-01",
		ExpectedPubkeyFingerprint: base64.StdEncoding.EncodeToString(make([]byte, 32)),
		IssuedAt:                  ten.Add(123 * time.Millisecond).In(time.FixedZone("elsewhere", 3600)),
		ExpiresAt:                 ten.Add(time.Hour),
		Nonce:                     identity.NewNonce(),
	}
	minted, err := identity.MintToken(claims, orgSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(minted)
	if err != nil {
		t.Fatal(err)
	}
	got, err := identity.VerifyToken(token, orgRoot(t), ten)
	if err != nil {
		t.Fatal(err)
	}
	claims.IssuedAt = ten
	if got != claims {
		t.Errorf("%+v, want %+v", got, claims)
	}
	// A minute of a clock that is ahead is forgiven, not more.
	if _, err := identity.VerifyToken(token, orgRoot(t), ten.Add(-time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := identity.VerifyToken(token, orgRoot(t), ten.Add(-61*time.Second)); !errors.Is(err, identity.ErrTokenNotYet) {
		t.Error(err)
	}
}

// TestTokenBeforeRootKeyWasReplaced: what a stolen root key may have signed is
// refused by date.
func TestTokenBeforeRootKeyWasReplaced(t *testing.T) {
	token, err := identity.ParseToken(read(t, "testdata/vectors/token.json"))
	if err != nil {
		t.Fatal(err)
	}
	slot := orgRoot(t)
	slot.RejectBefore = ten
	if _, err := identity.VerifyToken(token, slot, ten); !errors.Is(err, identity.ErrTokenRejected) {
		t.Error(err)
	}
	if _, err := identity.VerifyToken(token, trust.Slot{}, ten); !errors.Is(err, identity.ErrTokenSignature) {
		t.Errorf("without a root key: %v", err)
	}
}

// TestUnsignedLearnNothing: of a token that is expired and not signed, the
// signature is what is said.
func TestUnsignedLearnNothing(t *testing.T) {
	token, err := identity.ParseToken(read(t, "testdata/invalid/token/changed-claim.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.VerifyToken(token, orgRoot(t), ten.AddDate(1, 0, 0)); !errors.Is(err, identity.ErrTokenSignature) {
		t.Error(err)
	}
}

func TestMintRefusesBadClaims(t *testing.T) {
	if minted, err := identity.MintToken(identity.Claims{Hostname: "web-01"}, orgSigner(t)); err == nil {
		t.Errorf("minted %s", minted)
	}
}

func TestInvalidTokens(t *testing.T) {
	slot := orgRoot(t)
	eachInvalid(t, "token", ".json", func(data []byte) error {
		token, err := identity.ParseToken(data)
		if err != nil {
			return err
		}
		_, err = identity.VerifyToken(token, slot, ten)
		return err
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add(read(f, "testdata/vectors/token.json"))
	seedInvalid(f, "token", ".json")
	slot := orgRoot(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		token, err := identity.ParseToken(data)
		if err != nil {
			if !errors.Is(err, identity.ErrTokenMalformed) {
				t.Errorf("an error without a type: %v", err)
			}
			return
		}
		if claims, err := identity.VerifyToken(token, slot, ten); err == nil && claims.Hostname != "web-01" {
			t.Errorf("nobody signed %+v", claims)
		}
	})
}
