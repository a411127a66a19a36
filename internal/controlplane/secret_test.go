package controlplane_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"nixfleet/internal/controlplane"
	"nixfleet/internal/controlplane/fleettest"
)

// The authority's key must be private, the server's is warned of; both say how to
// make it so.
func TestSecretsMustBePrivate(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	w.stop()
	begin := func() (said string, err error) {
		var log bytes.Buffer
		w.config.Log = slog.New(slog.NewTextHandler(&log, nil))
		cp, err := controlplane.New(t.Context(), w.config)
		if err == nil {
			w.ok(cp.Close())
		}
		return log.String(), err
	}
	if said, err := begin(); err != nil || strings.Contains(said, "not private") {
		t.Errorf("all are private: %v\n%s", err, said)
	}
	w.ok(os.Chmod(f.ServerKey(), 0o640))
	if said, err := begin(); err != nil || !strings.Contains(said, "a secret is not private") || !strings.Contains(said, "chmod 600 "+f.ServerKey()) {
		t.Errorf("the server's key is not: %v\n%s", err, said)
	}
	w.ok(os.Chmod(f.CAKey(), 0o640))
	if _, err := begin(); err == nil || !strings.Contains(err.Error(), "mode 0640") || !strings.Contains(err.Error(), "chmod 600 "+f.CAKey()) {
		t.Errorf("the authority's key is not: %v", err)
	}
}
