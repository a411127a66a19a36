package backend

import (
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	m, err := Open("dirhost:"+t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := m.Facts(t.Context()); err != nil || f.BootID == "" {
		t.Errorf("%+v, %v", f, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	for name, says := range map[string]string{
		"":                     "want auto, nixos or dirhost:<dir>",
		"dirhost:":             "want auto, nixos or dirhost:<dir>",
		"windows":              "windows",
		"dirhost:/nonexistent": "no such file",
	} {
		if _, err := Open(name, Options{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
