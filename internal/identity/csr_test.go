package identity_test

import (
	"errors"
	"testing"

	"nixfleet/internal/identity"
)

func TestCSR(t *testing.T) {
	data, err := identity.NewCSR("web-01", hostKey(t))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.ParseCSR(data)
	if err != nil {
		t.Fatal(err)
	}
	if csr.MachineID != "web-01" || !csr.Key.Equal(publicOf(hostKey(t))) {
		t.Errorf("%+v", csr)
	}
	if data, err := identity.NewCSR("a/b", hostKey(t)); err == nil {
		t.Errorf("%s", data)
	}
}

func TestInvalidCSRs(t *testing.T) {
	eachInvalid(t, "csr", ".pem", func(data []byte) error {
		_, err := identity.ParseCSR(data)
		return err
	})
}

func FuzzParseCSR(f *testing.F) {
	f.Add(read(f, "testdata/vectors/web-01.csr.pem"))
	seedInvalid(f, "csr", ".pem")
	key := publicOf(hostKey(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		csr, err := identity.ParseCSR(data)
		switch {
		case err != nil && !errors.Is(err, identity.ErrCSR):
			t.Errorf("an error without a type: %v", err)
		case err == nil && csr.Key.Equal(key) && csr.MachineID != "web-01":
			t.Errorf("nobody asked for %s", csr.MachineID)
		}
	})
}
