package controlplane_test

import (
	"bytes"
	"crypto/ed25519"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/controlplane/source"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// The database is lost, and the folder of releases is taken back to an older one
// that is still fresh: the marks beside the database refuse it, and the operator
// sees why nothing is served.
func TestAttackOldReleaseAfterALostDatabase(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	serves := func(doc []byte) func() bool {
		return func() bool {
			code, got := w.operator().do("GET", wire.PathFleet, nil)
			return code == http.StatusOK && bytes.Equal(got, doc)
		}
	}
	w.release("aa")
	old, oldSig := f.Bytes(source.FleetName)
	w.eventually("the first release is served", serves(old))
	w.release("bb")
	newer, _ := f.Bytes(source.FleetName)
	w.eventually("the second release is served", serves(newer))
	w.stop()

	dir := filepath.Dir(strings.TrimPrefix(w.config.DB, "sqlite:"))
	files, err := os.ReadDir(dir)
	w.ok(err)
	for _, file := range files {
		if strings.HasPrefix(file.Name(), "state.db") {
			w.ok(os.Remove(filepath.Join(dir, file.Name())))
		}
	}
	w.ok(os.WriteFile(filepath.Join(f.Release(), source.FleetName), old, 0o600))
	w.ok(os.WriteFile(filepath.Join(f.Release(), source.FleetName+".sig"), oldSig, 0o600))
	w.start()
	w.eventually("the operator sees that it is refused", func() bool {
		return bytes.Contains(w.metrics(), []byte(`reason="older-than-accepted"`))
	})
	http.DefaultClient.CloseIdleConnections()
	w.operator().want("GET", wire.PathFleet, nil, 404, wire.SlugNotFound)
}

// C19, C28: a key that was stolen is refused by its fingerprint for good: with the
// certificate that it has, with one that was renewed the day before, and with a
// token that is still good.
func TestAttackStolenKey(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	h := f.Hosts[0]
	agent := w.enrolled(h)
	token := f.Token(h)
	f.Revoke(fleet.Revocation{
		Hostname: "another-name", NotBefore: time.Now().Add(-1000 * time.Hour), Reason: "stolen",
		KeyFingerprint: identity.Fingerprint(h.Key.Public().(ed25519.PublicKey)),
	})
	w.release("bb")
	w.eventually("it is revoked", func() bool { code, _ := agent.do("GET", wire.PathWhoami, nil); return code == 403 })
	request := w.enrolment(h, token)
	agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name}, 403, wire.SlugRevoked)
	agent.want("POST", wire.PathRenew, wire.RenewRequest{CSRPem: request.CSRPem}, 403, wire.SlugRevoked)
	w.nobody().want("POST", wire.PathEnroll, request, 403, wire.SlugRevoked)
}

// An operator's key is refused by its fingerprint too.
func TestAttackStolenOperatorKey(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	w.release("aa")
	operator := w.operator()
	operator.want("GET", wire.PathHosts, nil, 200, "")
	key, err := os.ReadFile(f.OperatorKey())
	w.ok(err)
	signer, err := identity.ParseKey(key)
	w.ok(err)
	fingerprint, err := identity.FingerprintOf(signer.Public())
	w.ok(err)
	f.Revoke(fleet.Revocation{Hostname: "alice", NotBefore: time.Now(), KeyFingerprint: fingerprint})
	w.release("bb")
	w.eventually("it is revoked", func() bool { code, _ := operator.do("GET", wire.PathHosts, nil); return code == 403 })
	operator.want("POST", wire.Fill(wire.PathChannelPause, fleettest.Channel), map[string]string{"reason": "x"}, 403, wire.SlugRevoked)
}
