package api_test

import (
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/controlplane/api"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// who a route is for, as the protocol has it.
type who string

const (
	anyone    who = "anyone"
	holders   who = "holders"
	members   who = "members"
	agents    who = "agents"
	operators who = "operators"
	renewers  who = "renewers"
)

// right stands for the answer that the route's own row names.
var right = verdict{}

var (
	noCertificate = verdict{401, wire.SlugNoCertificate}
	forbidden     = verdict{403, wire.SlugForbidden}
	expired       = verdict{403, wire.SlugExpired}
	notYet        = verdict{403, wire.SlugCertNotYet}
	revoked       = verdict{403, wire.SlugRevoked}
)

// answers is what every identity gets on the routes of each kind.
var answers = map[who]map[string]verdict{
	anyone: {
		"no certificate": right, "unknown authority": right, "a server's certificate": right, "expired": right, "not yet valid": right,
		"revoked by date": right, "revoked by key": right, "operator's revoked key": right, "no role": right, "two roles": right,
		"agent": right, "agent of another host": right, "operator": right,
	},
	holders: {
		"no certificate": noCertificate, "unknown authority": forbidden, "a server's certificate": forbidden, "expired": expired, "not yet valid": notYet,
		"revoked by date": revoked, "revoked by key": revoked, "operator's revoked key": revoked, "no role": right, "two roles": right,
		"agent": right, "agent of another host": right, "operator": right,
	},
	members: {
		"no certificate": noCertificate, "unknown authority": forbidden, "a server's certificate": forbidden, "expired": expired, "not yet valid": notYet,
		"revoked by date": revoked, "revoked by key": revoked, "operator's revoked key": revoked, "no role": forbidden, "two roles": forbidden,
		"agent": right, "agent of another host": right, "operator": right,
	},
	agents: {
		"no certificate": noCertificate, "unknown authority": forbidden, "a server's certificate": forbidden, "expired": expired, "not yet valid": notYet,
		"revoked by date": revoked, "revoked by key": revoked, "operator's revoked key": revoked, "no role": forbidden, "two roles": forbidden,
		"agent": right, "agent of another host": forbidden, "operator": forbidden,
	},
	operators: {
		"no certificate": noCertificate, "unknown authority": forbidden, "a server's certificate": forbidden, "expired": expired, "not yet valid": notYet,
		"revoked by date": revoked, "revoked by key": revoked, "operator's revoked key": revoked, "no role": forbidden, "two roles": forbidden,
		"agent": forbidden, "agent of another host": forbidden, "operator": right,
	},
	renewers: {
		"no certificate": noCertificate, "unknown authority": forbidden, "a server's certificate": forbidden, "expired": right, "not yet valid": notYet,
		"revoked by date": revoked, "revoked by key": revoked, "operator's revoked key": revoked, "no role": forbidden, "two roles": forbidden,
		"agent": right, "agent of another host": {403, wire.SlugNameMismatch}, "operator": forbidden,
	},
}

// row is one route with a request that the right one may make, and its answer.
type row struct {
	route string // "METHOD path", as the router has it
	who   who
	path  string // filled in; "": that of the route
	body  any
	right verdict
	// own says that the request names no host, so that an agent of another host
	// gets what is its own.
	own bool
}

func (r row) method() string { method, _, _ := strings.Cut(r.route, " "); return method }

func (r row) target() string {
	if r.path != "" {
		return r.path
	}
	_, path, _ := strings.Cut(r.route, " ")
	return path
}

// table is every route, with host-1 and the rollout stable@aa in its requests.
func table(t *testing.T, h *fleettest.Host) []row {
	const rollout = "stable@aa"
	why := wire.ActionRequest{Why: "a test"}
	ok, done := verdict{200, ""}, verdict{204, ""}
	host := func(path string) string { return wire.Fill(path, h.Name) }
	of := func(path string) string { return wire.Fill(path, rollout) }
	event := []byte(h.Converge(rollout, "", fleettest.Closure("nixos-old"), system)[0])
	return []row{
		{route: "GET " + wire.PathHealthz, who: anyone, right: ok},
		{route: "GET " + wire.PathReadyz, who: anyone, right: ok},
		{route: "POST " + wire.PathEnroll, who: anyone, body: enrolment(t, h, []byte("{}")), right: verdict{401, wire.SlugBadToken}},
		{route: "POST " + wire.PathBootstrapReport, who: anyone, body: wire.BootstrapReport{Token: []byte("{}")}, right: verdict{401, wire.SlugBadToken}},

		{route: "GET " + wire.PathDispatch, who: agents, right: ok, own: true},
		{route: "POST " + wire.PathReject, who: agents, body: wire.Reject{OrderID: "x", RolloutID: rollout, Reason: "busy"}, right: done, own: true},
		{route: "POST " + wire.PathEvents, who: agents, body: event, right: done},
		{route: "POST " + wire.PathEventsBatch, who: agents, body: wire.BatchRequest{}, right: ok, own: true},
		{route: "POST " + wire.PathHeartbeat, who: agents, body: wire.HeartbeatRequest{Hostname: h.Name}, right: ok},
		{route: "GET " + wire.PathClosure, who: agents, path: wire.Fill(wire.PathClosure, strings.Repeat("0", 32)), right: verdict{501, wire.SlugNoUpstream}, own: true},

		{route: "GET " + wire.PathFleet, who: members, right: ok},
		{route: "GET " + wire.PathFleetSig, who: members, right: ok},
		{route: "GET " + wire.PathManifest, who: members, path: of(wire.PathManifest), right: ok},
		{route: "GET " + wire.PathManifestSig, who: members, path: of(wire.PathManifestSig), right: ok},
		{route: "GET " + wire.PathWhoami, who: holders, right: ok},

		{route: "GET " + wire.PathMetrics, who: operators, right: ok},
		{route: "GET " + wire.PathHosts, who: operators, right: ok},
		{route: "GET " + wire.PathHost, who: operators, path: host(wire.PathHost), right: ok},
		{route: "GET " + wire.PathHostEvents, who: operators, path: host(wire.PathHostEvents), right: ok},
		{route: "GET " + wire.PathHostEvidence, who: operators, path: host(wire.PathHostEvidence), right: ok},
		{route: "GET " + wire.PathChannels, who: operators, right: ok},
		{route: "GET " + wire.PathChannel, who: operators, path: wire.Fill(wire.PathChannel, fleettest.Channel), right: ok},
		{route: "GET " + wire.PathRollouts, who: operators, right: ok},
		{route: "GET " + wire.PathRolloutLifecycle, who: operators, path: of(wire.PathRolloutLifecycle), right: ok},
		{route: "GET " + wire.PathRolloutHosts, who: operators, path: of(wire.PathRolloutHosts), right: ok},
		{route: "GET " + wire.PathRolloutEvents, who: operators, path: of(wire.PathRolloutEvents), right: ok},
		{route: "GET " + wire.PathDeferrals, who: operators, right: ok},
		{route: "GET " + wire.PathQuarantine, who: operators, right: ok},
		{route: "GET " + wire.PathAudit, who: operators, right: ok},
		{route: "GET " + wire.PathCertificates, who: operators, right: ok},
		{route: "GET " + wire.PathRecovery, who: operators, right: ok},

		{route: "POST " + wire.PathChannelPause, who: operators, path: wire.Fill(wire.PathChannelPause, fleettest.Channel), body: why, right: done},
		{route: "POST " + wire.PathChannelResume, who: operators, path: wire.Fill(wire.PathChannelResume, fleettest.Channel), body: why, right: done},
		{route: "POST " + wire.PathRolloutResume, who: operators, path: of(wire.PathRolloutResume), body: why, right: done},
		{route: "POST " + wire.PathRolloutAdvance, who: operators, path: of(wire.PathRolloutAdvance), body: why, right: verdict{409, wire.SlugConflict}},
		{route: "POST " + wire.PathRolloutSkip, who: operators, path: of(wire.PathRolloutSkip), body: wire.ActionRequest{Why: "a test", Hosts: []string{"host-5"}}, right: done},
		{route: "POST " + wire.PathRolloutRollback, who: operators, path: of(wire.PathRolloutRollback), body: why, right: ok},
		{route: "POST " + wire.PathQuarantineClear, who: operators, body: wire.QuarantineClearRequest{Why: "a test", Channel: fleettest.Channel, Closure: system}, right: verdict{409, wire.SlugConflict}},
		{route: "POST " + wire.PathRecoveryEnd, who: operators, body: why, right: verdict{409, wire.SlugConflict}},
		{route: "POST " + wire.PathHostForget, who: operators, path: wire.Fill(wire.PathHostForget, "host-5"), body: why, right: done},

		// Last: an expired certificate that this database did not issue makes it recovering.
		{route: "POST " + wire.PathRenew, who: renewers, body: wire.RenewRequest{CSRPem: request(t, h)}, right: ok},
	}
}

// C14: every route tells every identity exactly what it should, by status and
// slug. A route that the router has and this table has not, or the other way
// round, fails the test.
func TestEveryRouteAndEveryIdentity(t *testing.T) {
	f := fleettest.New(t, 5)
	host, other, dated, barred := f.Hosts[0], f.Hosts[1], f.Hosts[2], f.Hosts[3]
	now := time.Now()
	f.Revoke(fleet.Revocation{Hostname: dated.Name, NotBefore: now.Add(-time.Hour)})
	f.Revoke(fleet.Revocation{Hostname: barred.Name, NotBefore: now.Add(-12 * time.Hour), KeyFingerprint: fingerprint(barred)})
	token, otherToken := f.Token(host), f.Token(other)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")

	stranger := authority(t, fleettest.New(t, 1))
	operator, err := identity.OperatorTemplate("mallory", now.Add(-time.Minute), time.Hour)
	must(t, err)
	server, err := identity.ServerTemplate([]string{"cp"}, now.Add(-time.Minute), time.Hour)
	must(t, err)
	roleless, err := identity.OperatorTemplate("nobody", now.Add(-time.Minute), time.Hour)
	must(t, err)
	roleless.URIs = nil
	double, err := identity.AgentTemplate(host.Name, "", now.Add(-time.Minute), time.Hour)
	must(t, err)
	double.URIs = append(double.URIs, operator.URIs...)
	identities := map[string]*client{
		"no certificate":         p.client(nil),
		"unknown authority":      p.client(agentCert(t, stranger, host, now.Add(-time.Minute), time.Hour)),
		"a server's certificate": p.client(issue(t, p.ca, server, host.Key)),
		"expired":                p.client(agentCert(t, p.ca, host, now.Add(-3*time.Hour), 2*time.Hour)),
		"not yet valid":          p.client(agentCert(t, p.ca, host, now.Add(time.Hour), time.Hour)),
		"revoked by date":        p.client(agentCert(t, p.ca, dated, now.Add(-2*time.Hour), 24*time.Hour)),
		"revoked by key":         p.client(agentCert(t, p.ca, barred, now.Add(-time.Minute), time.Hour)),
		"operator's revoked key": p.client(issue(t, p.ca, operator, barred.Key)),
		"no role":                p.client(issue(t, p.ca, roleless, host.Key)),
		"two roles":              p.client(issue(t, p.ca, double, host.Key)),
		"agent":                  p.enrolled(host, token),
		"agent of another host":  p.enrolled(other, otherToken),
		"operator":               p.operator(),
	}
	names := slices.Sorted(maps.Keys(identities))
	for kind, verdicts := range answers {
		if !slices.Equal(names, slices.Sorted(maps.Keys(verdicts))) {
			t.Fatalf("the answers for %s are not those of every identity", kind)
		}
	}
	rows := table(t, host)
	var listed []string
	for _, r := range rows {
		listed = append(listed, r.route)
		for _, name := range names {
			want := answers[r.who][name]
			if want == right || r.own && name == "agent of another host" {
				want = r.right
			}
			if got, _, answer := identities[name].ask(r.method(), r.target(), r.body); got != want {
				t.Errorf("%s, %s: %d %s, want %d %s: %.200q", r.route, name, got.code, got.slug, want.code, want.slug, answer)
			}
		}
	}
	slices.Sort(listed)
	if routed := slices.Sorted(maps.Keys(api.RouteTable())); !slices.Equal(routed, listed) {
		t.Errorf("the router has %v\nthe table has %v", routed, listed)
	}
}

func fingerprint(h *fleettest.Host) string {
	f, err := identity.FingerprintOf(h.Key.Public())
	if err != nil {
		panic(err)
	}
	return f
}

// C14: a host's certificate says nothing about another host: whatever names one
// is refused, and what names none is about the caller itself.
func TestAnotherHostIsOutOfReach(t *testing.T) {
	f := fleettest.New(t, 2)
	host, other := f.Hosts[0], f.Hosts[1]
	token, otherToken := f.Token(host), f.Token(other)
	const rollout = "stable@aa"
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready(rollout)
	agent, theirs, operator := p.enrolled(host, token), p.enrolled(other, otherToken), p.operator()

	// Each gets its own order, and neither answers the other's.
	order := func(c *client) (o wire.Order) {
		decode(t, c.want("GET", wire.PathDispatch+"?wait=20", nil, 200, ""), &o)
		return o
	}
	mine, others := order(agent), order(theirs)
	if mine.Hostname != host.Name || others.Hostname != other.Name || mine.OrderID == others.OrderID {
		t.Fatalf("the orders are %+v and %+v", mine, others)
	}
	agent.want("POST", wire.PathReject, wire.Reject{OrderID: others.OrderID, RolloutID: rollout, Reason: "busy"}, 204, "")

	// Envelopes of the other host, alone and among its own.
	own := host.Converge(rollout, mine.OrderID, fleettest.Closure("nixos-old"), system)
	foreign := other.Converge(rollout, others.OrderID, fleettest.Closure("nixos-old"), system)
	agent.want("POST", wire.PathEvents, []byte(foreign[0]), 403, wire.SlugForbidden)
	var results wire.BatchResponse
	batch := map[string]any{"events": []any{own[0], foreign[0], own[1]}}
	decode(t, agent.want("POST", wire.PathEventsBatch, batch, 200, ""), &results)
	for i, want := range []verdict{{0, ""}, {403, wire.SlugForbidden}, {0, ""}} {
		r := results.Results[i]
		switch {
		case want.slug == "" && (r.Status != wire.StatusStored || r.Error != nil),
			want.slug != "" && (r.Status != wire.StatusRefused || r.Error == nil || r.Error.Slug != want.slug):
			t.Errorf("envelope %d of the batch: %+v", i, r)
		}
	}
	// An envelope that names the caller and was signed by the other is no event of
	// the other, and not believed.
	forged := &fleettest.Host{}
	*forged = *other
	forged.Name = host.Name
	agent.want("POST", wire.PathEvents, []byte(forged.Numbered(rollout, 3, lifecycle.ProbeTopologyDeclared{})), 422, wire.SlugBadSignature)

	agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: other.Name}, 403, wire.SlugForbidden)
	agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{}, 403, wire.SlugForbidden)
	agent.want("POST", wire.PathRenew, wire.RenewRequest{CSRPem: request(t, other)}, 403, wire.SlugNameMismatch)
	for _, path := range []string{wire.PathHost, wire.PathHostEvents, wire.PathHostEvidence} {
		agent.want("GET", wire.Fill(path, other.Name), nil, 403, wire.SlugForbidden)
		agent.want("GET", wire.Fill(path, host.Name), nil, 403, wire.SlugForbidden)
	}
	for _, path := range []string{wire.PathRolloutHosts, wire.PathRolloutEvents, wire.PathRolloutLifecycle} {
		agent.want("GET", wire.Fill(path, rollout), nil, 403, wire.SlugForbidden)
	}

	var v wire.HostView
	decode(t, operator.want("GET", wire.Fill(wire.PathHost, other.Name), nil, 200, ""), &v)
	if v.LastSeq != 0 || v.Reject != nil || v.State != lifecycle.Pending {
		t.Errorf("the other host is now %+v", v)
	}
}

// Who holds a certificate without its key, or speaks an older TLS, gets no HTTP
// answer at all.
func TestHandshakesThatFail(t *testing.T) {
	f := fleettest.New(t, 2)
	p := serve(t, f)
	stolen := agentCert(t, p.ca, f.Hosts[0], time.Now().Add(-time.Minute), time.Hour)
	stolen.PrivateKey = f.Hosts[1].Key
	for _, c := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"TLS 1.2", &tls.Config{RootCAs: p.roots, MaxVersion: tls.VersionTLS12}, "remote error: tls: protocol version not supported"},
		{"a certificate without its key", &tls.Config{RootCAs: p.roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return stolen, nil }},
			"remote error: tls: error decrypting message"},
	} {
		conn, err := tls.Dial("tcp", p.address, c.config)
		if err == nil { // the server's verdict on the client comes after the client's on the server
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}
