package api_test

import (
	"crypto/ed25519"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// C21: a control plane whose clock is nearly a minute behind everybody else's, or
// ahead of it, takes a host through enrolment, documents, order and heartbeat.
func TestAMinuteOfClockSkewIsNotNoticed(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"the control plane is behind": 55 * time.Second, "the control plane is ahead": -55 * time.Second} {
		t.Run(name, func(t *testing.T) {
			// All that is not the control plane's shows this time.
			theirs := func() time.Time { return time.Now().Add(ahead) }
			f := fleettest.New(t, 1)
			f.Ahead = ahead
			h := f.Hosts[0]
			token := f.Token(h)
			f.Publish("aa", system)
			p := serve(t, f)
			p.ready("stable@aa")
			var got wire.CertificateResponse
			decode(t, p.client(nil).want("POST", wire.PathEnroll, enrolment(t, h, token), 200, ""), &got)
			ca, err := os.ReadFile(f.CACert())
			must(t, err)
			_, err = identity.CheckCertificate([]byte(got.CertPem), identity.Expected{
				MachineID: h.Name, Key: h.Key.Public().(ed25519.PublicKey), IssuanceCAs: []string{string(ca)}, Now: theirs(),
			})
			must(t, err)
			agent := p.client(pair(t, h, got))
			agent.want("GET", wire.PathDispatch+"?wait=20", nil, 200, "")
			doc := agent.want("GET", wire.Fill(wire.PathManifest, "stable@aa"), nil, 200, "")
			sig := agent.want("GET", wire.Fill(wire.PathManifestSig, "stable@aa"), nil, 200, "")
			_, err = trust.VerifyManifest(doc, sig, f.Slot(), theirs(), 0, trust.Mark{}, trust.Expect{})
			must(t, err)
			agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name, At: theirs(), Clock: &wire.Clock{Synchronized: true, OffsetMs: ahead.Milliseconds()}}, 200, "")
			// Also one whose certificate another control plane issued a moment ago.
			p.client(agentCert(t, p.ca, h, theirs(), time.Hour)).want("GET", wire.PathWhoami, nil, 200, "")
			var v wire.HostView
			decode(t, p.operator().want("GET", wire.Fill(wire.PathHost, h.Name), nil, 200, ""), &v)
			if len(v.Conditions) != 0 {
				t.Errorf("the operator sees %v", v.Conditions)
			}
		})
	}
}

// C21: an hour is noticed, and everybody is told what is wrong.
func TestAnHourOfClockSkewIsSaid(t *testing.T) {
	f := fleettest.New(t, 2)
	h, late := f.Hosts[0], f.Hosts[1]
	f.Ahead = time.Hour
	early := f.Token(h)
	f.Ahead = 0
	now := time.Now()
	expired := f.Mint(identity.Claims{Hostname: late.Name, ExpectedPubkeyFingerprint: fingerprint(late), IssuedAt: now.Add(-time.Hour), ExpiresAt: now.Add(-30 * time.Minute), Nonce: identity.NewNonce()})
	good := f.Token(h)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	nobody, operator := p.client(nil), p.operator()
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339)[:len("2006-01-02T15:04")] }
	says := func(answer []byte, moments ...time.Time) {
		t.Helper()
		for _, at := range moments {
			if !strings.Contains(string(answer), stamp(at)) {
				t.Errorf("the answer does not tell %s: %s", stamp(at), answer)
			}
		}
	}
	view := func(host string) (v wire.HostView) {
		decode(t, operator.want("GET", wire.Fill(wire.PathHost, host), nil, 200, ""), &v)
		return v
	}

	// Tokens. The host reports what it was told, and the operator sees that.
	for _, c := range []struct {
		host    *fleettest.Host
		token   []byte
		slug    wire.Slug
		moments []time.Time
	}{{h, early, wire.SlugTokenNotYet, []time.Time{now.Add(time.Hour), now}}, {late, expired, wire.SlugTokenExpired, []time.Time{now.Add(-30 * time.Minute), now}}} {
		answer := nobody.want("POST", wire.PathEnroll, enrolment(t, c.host, c.token), 403, c.slug)
		says(answer, c.moments...)
		nobody.want("POST", wire.PathBootstrapReport, wire.BootstrapReport{
			Token: c.token, Event: wire.BootstrapEvent{Kind: wire.BootstrapEnrollmentFailed, Reason: string(answer)}, OccurredAt: now.Add(time.Hour)}, 204, "")
		if v := view(c.host.Name); !slices.Contains(v.Conditions, wire.ConditionEnrolment) {
			t.Errorf("the operator sees %v", v.Conditions)
		} else {
			says([]byte(v.Why), c.moments...)
		}
	}

	// A host whose clock is off, as its heartbeats tell.
	agent := p.enrolled(h, good)
	for _, offset := range []time.Duration{time.Hour, -time.Hour} {
		agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name, Clock: &wire.Clock{OffsetMs: offset.Milliseconds()}}, 200, "")
		if v := view(h.Name); v.ClockOffsetMs != offset.Milliseconds() || !slices.Contains(v.Conditions, wire.ConditionSkewed) {
			t.Errorf("the operator sees %d ms, %v", v.ClockOffsetMs, v.Conditions)
		}
	}
	agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name, Clock: &wire.Clock{OffsetMs: 30_000}}, 200, "")
	if v := view(h.Name); slices.Contains(v.Conditions, wire.ConditionSkewed) {
		t.Errorf("when it is right again the operator sees %v", v.Conditions)
	}

	// Certificates of a control plane that is an hour ahead.
	says(p.client(agentCert(t, p.ca, h, now.Add(time.Hour), time.Hour)).want("GET", wire.PathWhoami, nil, 403, wire.SlugCertNotYet), now.Add(time.Hour), now)

	// Documents of an owner who is an hour ahead are not taken; those before stay.
	f.Ahead = time.Hour
	f.Publish("bb", system)
	p.eventually("metrics tell", func() bool { return strings.Contains(p.metrics(), `document_problems_total{reason="future-dated"}`) })
	operator.want("GET", wire.Fill(wire.PathManifest, "stable@bb"), nil, 404, wire.SlugNotFound)
	operator.want("GET", wire.Fill(wire.PathManifest, "stable@aa"), nil, 200, "")
	// When the owner's clock is right again the next release is.
	f.Ahead = 0
	f.Publish("cc", system)
	p.ready("stable@cc")
	agent.want("GET", wire.PathWhoami, nil, 200, "")
}

func (p *plane) metrics() string {
	p.t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://" + p.local + wire.PathMetrics)
	must(p.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(p.t, err)
	return string(text)
}

// A certificate that was refused because it is not valid yet is taken when its
// time has come, over the same connection.
func TestACertificateIsTakenOnceItsTimeHasCome(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	agent := p.client(agentCert(t, p.ca, h, time.Now().Add(64*time.Second), time.Hour))
	agent.want("GET", wire.PathWhoami, nil, 403, wire.SlugCertNotYet)
	p.within(20*time.Second, "it is taken", func() bool {
		got, _, _ := agent.ask("GET", wire.PathWhoami, nil)
		return got.code == 200
	})
}
