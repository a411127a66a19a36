package api_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// station is a host with a real agent, which a test starts and stops.
type station struct {
	*plane
	host    *fleettest.Host
	dir     string
	machine *dirhost.Machine
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	config  func(*agent.Config)
}

func (p *plane) station(h *fleettest.Host, m *dirhost.Machine) *station {
	p.t.Helper()
	s := &station{plane: p, host: h, dir: p.t.TempDir(), machine: m}
	block, err := ssh.MarshalPrivateKey(h.Key, "")
	must(p.t, err)
	s.write("host_key", pem.EncodeToMemory(block))
	must(p.t, os.MkdirAll(s.path("state"), 0o700))
	return s
}

func (s *station) path(name string) string { return filepath.Join(s.dir, name) }

func (s *station) write(name string, data []byte) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path(name), data, 0o600))
}

// start starts the agent; what it gives stops it.
func (s *station) start() (stop func()) {
	s.t.Helper()
	cfg := agent.Config{
		ControlPlane: &url.URL{Scheme: "https", Host: s.address}, MachineID: s.host.Name, PollInterval: 100 * time.Millisecond,
		TrustFile: s.fleet.Trust(), CACertFile: s.fleet.CACert(), ClientCertFile: s.path("state/cert.pem"), ClientKeyFile: s.path("host_key"),
		BootstrapTokenFile: s.path("token.json"), SSHHostKeyFile: s.path("host_key"), StateDir: s.path("state"), HealthChecksFile: s.path("none.json"),
		RenewalThreshold: 0.5, ClockPolicy: agent.ClockTrust, MaxClockSkew: time.Minute, Guard: []string{"/guard"}, Version: "test",
		Clock: func() agent.ClockState { return agent.ClockState{Synchronised: true} },
	}
	if s.config != nil {
		s.config(&cfg)
	}
	a, err := agent.New(cfg, s.machine, s.dial)
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("the agent: %v", err)
		}
	})
}

// view is what an operator sees of the host.
func (s *station) view() (v wire.HostView) {
	s.t.Helper()
	decode(s.t, s.operator().want("GET", wire.Fill(wire.PathHost, s.host.Name), nil, 200, ""), &v)
	return v
}

// converged writes a journal in which the host has converged on the rollout and
// then reported its health for a long time, and nothing is sent. It gives the
// number of events.
func (s *station) converged(rollout string, closure fleet.Closure, changes int) int64 {
	s.t.Helper()
	doc, sig := s.fleet.Bytes("rollouts/" + rollout + ".json")
	m, err := trust.Accepted[fleet.Manifest](trust.Entry{Document: doc, Signature: sig})
	must(s.t, err)
	h, err := lifecycle.New(s.host.Name, rollout, m.Doc(), m.PlanHash(), m.SignedAt())
	must(s.t, err)
	events := s.host.Converge(rollout, "", closure, closure)
	for i := range changes {
		events = append(events, s.host.Event(rollout, lifecycle.HealthChanged{Healthy: i%2 == 1, FailingProbes: []string{"app"}[i%2:]}))
	}
	for _, raw := range events {
		var envelope wire.Envelope
		decode(s.t, raw, &envelope)
		e, err := wire.DecodeEvent(envelope.Event)
		must(s.t, err)
		h, err = lifecycle.Step(h, e)
		must(s.t, err)
	}
	j, err := journal.Open(s.path("state/journal.db"))
	must(s.t, err)
	err = j.Update(func(tx *journal.Tx) error {
		for i, raw := range events {
			if err := tx.Append(rollout, int64(i+1), raw); err != nil {
				return err
			}
		}
		if err := tx.PutSelf(journal.Self{Numbered: true, Accepted: 1}); err != nil {
			return err
		}
		if err := tx.PutDocument(rollout, journal.Document{Entry: m.Entry()}); err != nil {
			return err
		}
		return tx.PutRollout(journal.Rollout{Host: h, Order: 1, AckSeq: 1})
	})
	must(s.t, err)
	must(s.t, j.Close())
	return int64(len(events))
}

// slowConn is a connection whose every write takes a moment.
type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return c.Conn.Write(b)
}

// C7: a certificate is replaced while a long outbox is being sent, as often as
// can be, and every event is stored once and in order.
func TestCertificatesAreReplacedWhileEventsAreSent(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	cache := hosttest.NewCache(t)
	closure := cache.Closure("v1", hosttest.Obey)
	const rollout = "stable@aa"
	first := f.Token(h)
	f.Publish("aa", closure)
	p := serve(t, f)
	p.ready(rollout)
	s := p.station(h, cache.NewMachine(closure))
	s.write("token.json", first)
	last := s.converged(rollout, closure, 1000)
	s.config = func(c *agent.Config) { c.RenewalThreshold = 1.5 } // as soon as there is one, the next is due
	s.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return slowConn{conn}, err
	}
	stop := s.start()
	defer stop()
	p.within(2*time.Minute, "all is sent", func() bool { return s.view().LastSeq >= last })
	stop()

	var events []wire.EventView
	operator := p.operator()
	for after := "0"; after != ""; {
		var page wire.Page[wire.EventView]
		decode(t, operator.want("GET", wire.Fill(wire.PathHostEvents, h.Name)+"?limit=1000&after="+after, nil, 200, ""), &page)
		events, after = append(events, page.Items...), page.Next
	}
	// Between two events of the log, a certificate that was issued took a place.
	issued := 0
	for i, e := range events {
		if e.Seq != int64(i+1) || e.Verdict != "stored" {
			t.Fatalf("event %d of the log has number %d and is %s: %s", i+1, e.Seq, e.Verdict, e.Detail)
		}
		if i > 0 && e.Seq <= last && e.LogID != events[i-1].LogID+1 {
			issued++
		}
	}
	var certificates wire.Page[wire.CertificateView]
	decode(t, operator.want("GET", wire.PathCertificates+"?limit=1000", nil, 200, ""), &certificates)
	if len(certificates.Items) < 3 || issued < 2 {
		t.Errorf("%d certificates, %d times while events were sent: too few to show anything", len(certificates.Items), issued)
	}
	if v := s.view(); len(v.Conditions) != 0 {
		t.Errorf("the host is %v: %s", v.Conditions, v.Why)
	}
}

// A host that was revoked, and whose owner puts a newer token beside it, comes
// back by itself; until then operators see why it does not. C28: its old token
// is not good for that.
func TestARevokedHostComesBackByANewToken(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	cache := hosttest.NewCache(t)
	closure := cache.Closure("v1", hosttest.Obey)
	old := f.Token(h)
	f.Publish("aa", closure)
	p := serve(t, f)
	p.ready("stable@aa")
	s := p.station(h, cache.NewMachine(closure))
	s.write("token.json", old)
	stop := s.start()
	defer stop()
	// One more than a second later than the first certificate, as dates have no
	// more precision.
	p.eventually("it has enrolled", func() bool { return !s.view().LastSeenAt.IsZero() })
	revokedAt := time.Now().Truncate(time.Second).Add(time.Second)
	f.Revoke(fleet.Revocation{Hostname: h.Name, NotBefore: revokedAt, Reason: "stolen"})
	f.Publish("bb", closure)
	p.eventually("operators see that it is refused", func() bool {
		e := s.view().Enrolment
		return e != nil && e.Kind == wire.BootstrapEnrollmentFailed && strings.Contains(e.Reason, "was revoked")
	})
	time.Sleep(time.Until(revokedAt)) // the new token is of a later second
	s.write("token.json", f.Token(h))
	f.Publish("cc", closure)
	var since wire.HostView
	p.eventually("it is back", func() bool {
		since = s.view()
		return since.Enrolment == nil && since.LastSeenAt.After(revokedAt)
	})
}

// A certificate of an authority that the host does not pin is not used, and
// operators see that as a matter of trust.
func TestAHostThatDoesNotTrustItsCertificateSaysSo(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	cache := hosttest.NewCache(t)
	closure := cache.Closure("v1", hosttest.Obey)
	token := f.Token(h)
	f.Publish("aa", closure)
	p := serve(t, f)
	p.ready("stable@aa")
	s := p.station(h, cache.NewMachine(closure))
	s.write("token.json", token)
	s.write("trust.json", pinning(t, f.Trust(), fleettest.New(t, 1).CACert()))
	s.config = func(c *agent.Config) { c.TrustFile = s.path("trust.json") }
	stop := s.start()
	defer stop()
	p.eventually("operators see it", func() bool {
		e := s.view().Enrolment
		return e != nil && e.Kind == wire.BootstrapTrustError && strings.Contains(e.Reason, "not issued by a pinned authority")
	})
	if _, err := os.Stat(s.path("state/cert.pem")); err == nil {
		t.Error("the certificate was stored")
	}
}

// pinning is a trust file that pins one authority, and else what another has.
func pinning(t *testing.T, trustFile, caFile string) []byte {
	t.Helper()
	raw, err := os.ReadFile(trustFile)
	must(t, err)
	var doc map[string]any
	decode(t, raw, &doc)
	ca, err := os.ReadFile(caFile)
	must(t, err)
	doc["issuanceCaPems"] = []string{string(ca)}
	out, err := json.Marshal(doc)
	must(t, err)
	return out
}

// A host whose certificate has expired, and whom nobody renews it, falls back to
// its token: here its certificate is of an authority that was replaced.
func TestAnExpiredCertificateThatIsNotRenewedIsReplacedByTheToken(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	cache := hosttest.NewCache(t)
	closure := cache.Closure("v1", hosttest.Obey)
	token := f.Token(h)
	f.Publish("aa", closure)
	p := serve(t, f)
	p.ready("stable@aa")
	s := p.station(h, cache.NewMachine(closure))
	s.write("token.json", token)
	before := agentCert(t, authority(t, fleettest.New(t, 1)), h, time.Now().Add(-3*time.Hour), time.Hour)
	s.write("state/cert.pem", identity.EncodeCertificate(before.Leaf))
	stop := s.start()
	defer stop()
	p.eventually("it has enrolled", func() bool { return !s.view().LastSeenAt.IsZero() })
}
