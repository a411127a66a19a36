package trust_test

import (
	"crypto/ed25519"
	"testing"
	"time"

	"nixfleet/internal/trust"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newSigner(tb testing.TB) trust.Signer {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := trust.NewSigner(private)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
