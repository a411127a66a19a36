package controlplane_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nixfleet/internal/controlplane"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	oldSystem = fleettest.Closure("nixos-old")
	newSystem = fleettest.Closure("nixos-new")
)

// world is a control plane that serves a fleet over TLS on loopback.
type world struct {
	t      *testing.T
	fleet  *fleettest.Fleet
	config controlplane.Config
	url    string
	local  string
	stop   func()
}

func serve(t *testing.T, f *fleettest.Fleet) *world {
	t.Helper()
	w := &world{t: t, fleet: f, config: controlplane.Config{
		DB: "sqlite:" + filepath.Join(t.TempDir(), "db", "state.db"), ReleaseSource: []string{f.Release()}, TrustFile: f.Trust(),
		TLSCert: f.ServerCert(), TLSKey: f.ServerKey(), ClientCA: f.CACert(), CACert: f.CACert(), CAKey: f.CAKey(),
		AgentCertValidity: time.Hour, AgentCertSuffix: "fleet.example", Heartbeat: time.Minute, SourceInterval: 100 * time.Millisecond,
		Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	cp, err := controlplane.New(w.t.Context(), w.config)
	w.ok(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	w.ok(err)
	w.url, w.local = "https://"+listener.Addr().String(), "http://"+local.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- cp.Run(ctx, listener, local) }()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		w.stop = func() {}
	}
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// client is somebody who asks.
type client struct {
	w       *world
	http    *http.Client
	version string // of the protocol; "-": none
}

func (w *world) client(cert *tls.Certificate) *client {
	w.t.Helper()
	pem, err := os.ReadFile(w.fleet.CACert())
	w.ok(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &client{w: w, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}, version: "1"}
}

func (w *world) nobody() *client { return w.client(nil) }

func (w *world) operator() *client {
	w.t.Helper()
	cert, err := tls.LoadX509KeyPair(w.fleet.OperatorCert(), w.fleet.OperatorKey())
	w.ok(err)
	return w.client(&cert)
}

// agent is a host with its certificate.
func (w *world) agent(h *fleettest.Host, certPEM string) *client {
	w.t.Helper()
	certs, err := identity.ParseCertificates([]byte(certPEM))
	w.ok(err)
	return w.client(&tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: h.Key})
}

// enrolled is a host that has enrolled.
func (w *world) enrolled(h *fleettest.Host) *client {
	w.t.Helper()
	token := w.fleet.Token(h)
	w.release("aa")
	var got wire.CertificateResponse
	w.eventually("the token is allowed", func() bool {
		code, body := w.nobody().do("POST", wire.PathEnroll, w.enrolment(h, token))
		return code == http.StatusOK && json.Unmarshal(body, &got) == nil
	})
	return w.agent(h, got.CertPem)
}

func (w *world) enrolment(h *fleettest.Host, token []byte) wire.EnrollRequest {
	w.t.Helper()
	csr, err := identity.NewCSR(h.Name, h.Key)
	w.ok(err)
	return wire.EnrollRequest{Token: token, CSRPem: string(csr)}
}

// logFile is where issued certificates are logged.
func (w *world) logFile() string {
	return filepath.Join(filepath.Dir(strings.TrimPrefix(w.config.DB, "sqlite:")), "issuances.jsonl")
}

func (w *world) release(ref string) string { return w.fleet.Publish(ref, newSystem) }

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("it never came true: %s", what)
		}
	}
}

// do makes a request. A body that is bytes is sent as it is.
func (c *client) do(method, path string, body any) (int, []byte) {
	c.w.t.Helper()
	code, _, raw := c.ask(method, path, body, nil)
	return code, raw
}

func (c *client) ask(method, path string, body any, header http.Header) (int, http.Header, []byte) {
	c.w.t.Helper()
	raw, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		raw, err = json.Marshal(body)
		c.w.ok(err)
	}
	req, err := http.NewRequestWithContext(c.w.t.Context(), method, c.w.url+path, bytes.NewReader(raw))
	c.w.ok(err)
	for name, values := range header {
		req.Header[name] = values
	}
	if c.version != "-" {
		req.Header.Set(wire.HeaderProtocol, c.version)
	}
	resp, err := c.http.Do(req)
	c.w.ok(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	c.w.ok(err)
	return resp.StatusCode, resp.Header, answer
}

// want makes a request and compares the status and, of a refusal, the slug.
func (c *client) want(method, path string, body any, code int, slug wire.Slug) []byte {
	c.w.t.Helper()
	got, answer := c.do(method, path, body)
	var e wire.Error
	if got >= 400 {
		if err := json.Unmarshal(answer, &e); err != nil || e.Detail == "" {
			c.w.t.Errorf("%s %s: the error body is %s", method, path, answer)
		}
	}
	if got != code || e.Slug != slug {
		c.w.t.Fatalf("%s %s: %d %s, want %d %s", method, path, got, answer, code, slug)
	}
	return answer
}

func get[T any](c *client, path string) (v T) {
	c.w.t.Helper()
	c.w.ok(json.Unmarshal(c.want("GET", path, nil, http.StatusOK, ""), &v))
	return v
}

// TestHostIsTakenThroughARollout is the whole way: enrol, order, documents,
// events, heartbeat, and what an operator sees of it.
func TestHostIsTakenThroughARollout(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	h := f.Hosts[0]
	agent, operator := w.enrolled(h), w.operator()
	id := "stable@aa"

	who := get[wire.Whoami](agent, wire.PathWhoami)
	if who.Role != "agent" || who.Host != h.Name || who.CN != "agent-host-1.fleet.example" {
		t.Errorf("the agent is %+v", who)
	}
	order := get[wire.Order](agent, wire.PathDispatch+"?wait=20")
	if order.RolloutID != id || order.TargetClosure != newSystem {
		t.Fatalf("the order is %+v", order)
	}
	doc, sig := f.Bytes("rollouts/" + id + ".json")
	if got := agent.want("GET", wire.Fill(wire.PathManifest, id), nil, 200, ""); !bytes.Equal(got, doc) {
		t.Error("the manifest is not what was published")
	}
	if got := agent.want("GET", wire.Fill(wire.PathManifestSig, id), nil, 200, ""); !bytes.Equal(got, sig) {
		t.Error("its signature is not what was published")
	}
	events := h.Converge(id, order.OrderID, oldSystem, newSystem)
	agent.want("POST", wire.PathEvents, []byte(events[0]), http.StatusNoContent, "")
	var batch wire.BatchResponse
	w.ok(json.Unmarshal(agent.want("POST", wire.PathEventsBatch, map[string]any{"events": events}, 200, ""), &batch))
	for i, r := range batch.Results {
		want := wire.StatusStored
		if i == 0 {
			want = wire.StatusRepeated
		}
		if r.Status != want || r.Seq != int64(i+1) || r.RolloutID != id {
			t.Errorf("result %d is %+v", i, r)
		}
	}
	beat := wire.HeartbeatRequest{Hostname: h.Name, RolloutID: id, CurrentClosure: newSystem, BootID: "boot-1",
		AckedSeqByRollout: map[string]int64{id: int64(len(events))}, Phase: "idle"}
	var reply wire.HeartbeatResponse
	w.ok(json.Unmarshal(agent.want("POST", wire.PathHeartbeat, beat, 200, ""), &reply))
	if reply.NextHeartbeatSecs != 60 || len(reply.Replay) != 0 || reply.Documents == nil || reply.Documents.Manifest == "" {
		t.Errorf("the heartbeat was answered %+v", reply)
	}

	w.eventually("the rollout is Terminal", func() bool {
		return get[wire.RolloutLifecycle](operator, wire.Fill(wire.PathRolloutLifecycle, id)).State == "Terminal"
	})
	view := get[wire.HostView](operator, wire.Fill(wire.PathHost, h.Name))
	if view.State != "Converged" || view.Current != newSystem || view.LastSeenAt.IsZero() || view.Phase != "idle" || len(view.Conditions) != 0 {
		t.Errorf("the host is %+v", view)
	}
	if hosts := get[wire.Page[wire.HostView]](operator, wire.PathHosts); len(hosts.Items) != 1 {
		t.Errorf("hosts: %+v", hosts)
	}
	first := get[wire.Page[wire.EventView]](operator, wire.Fill(wire.PathHostEvents, h.Name)+"?limit=2")
	rest := get[wire.Page[wire.EventView]](operator, wire.Fill(wire.PathRolloutEvents, id)+"?after="+first.Next)
	if len(first.Items) != 2 || len(rest.Items) != len(events)-2 || rest.Items[0].Seq != 3 {
		t.Errorf("events: %+v, then %+v", first, rest)
	}
	if c := get[wire.ChannelView](operator, wire.Fill(wire.PathChannel, "stable")); c.RolloutID != id || c.Hosts != 1 || c.Converged != 1 {
		t.Errorf("the channel is %+v", c)
	}
	if hosts := get[wire.Page[wire.RolloutHost]](operator, wire.Fill(wire.PathRolloutHosts, id)); len(hosts.Items) != 1 || hosts.Items[0].State != "Converged" {
		t.Errorf("the rollout's hosts: %+v", hosts)
	}
	evidence := get[wire.Page[wire.EvidenceItem]](operator, wire.Fill(wire.PathHostEvidence, h.Name))
	if len(evidence.Items) != len(events) || evidence.Items[0].Envelope.Signature == "" || evidence.Items[len(events)-1].Envelope.SSHSig == "" {
		t.Errorf("evidence: %+v", evidence)
	}
	if certs := get[wire.Page[wire.CertificateView]](operator, wire.PathCertificates); len(certs.Items) != 1 || certs.Items[0].Name != h.Name {
		t.Errorf("certificates: %+v", certs)
	}
}

func TestDocumentsHaveTagsAndCompress(t *testing.T) {
	f := fleettest.New(t, 1)
	f.Publish("aa", newSystem)
	w := serve(t, f)
	c := w.operator()
	w.eventually("the fleet is served", func() bool { code, _ := c.do("GET", wire.PathFleet, nil); return code == 200 })
	doc, sig := f.Bytes("fleet.resolved.json")
	code, header, plain := c.ask("GET", wire.PathFleet, nil, http.Header{"Accept-Encoding": {"identity"}})
	etag := header.Get("ETag")
	if code != 200 || etag == "" || !bytes.Equal(plain, doc) || header.Get("Content-Encoding") != "" {
		t.Errorf("plain: %d %v", code, header)
	}
	code, header, packed := c.ask("GET", wire.PathFleet, nil, http.Header{"Accept-Encoding": {"gzip"}})
	if code != 200 || header.Get("Content-Encoding") != "gzip" || len(packed) >= len(doc) {
		t.Errorf("gzip: %d %v, %d bytes of %d", code, header, len(packed), len(doc))
	}
	if code, _, body := c.ask("GET", wire.PathFleet, nil, http.Header{"If-None-Match": {etag}}); code != 304 || len(body) != 0 {
		t.Errorf("unchanged: %d, %d bytes", code, len(body))
	}
	if got := c.want("GET", wire.PathFleetSig, nil, 200, ""); !bytes.Equal(got, sig) {
		t.Error("the signature is not what was published")
	}
	c.want("GET", wire.Fill(wire.PathManifest, "stable@ff"), nil, 404, wire.SlugNotFound)
	c.want("GET", wire.Fill(wire.PathRolloutLifecycle, "stable@ff"), nil, 404, wire.SlugNotFound)
	c.want("GET", wire.Fill(wire.PathHost, "nobody"), nil, 404, wire.SlugNotFound)
	c.want("GET", wire.Fill(wire.PathChannel, "nothing"), nil, 404, wire.SlugNotFound)
	c.want("GET", "/v1/nothing", nil, 404, wire.SlugNotFound)
	c.want("DELETE", wire.PathHosts, nil, 405, wire.SlugMethodNotAllowed)
}

func TestOperatorActions(t *testing.T) {
	f := fleettest.New(t, 1)
	f.Publish("aa", newSystem)
	w := serve(t, f)
	c := w.operator()
	w.eventually("the rollout opens", func() bool { return len(get[wire.Page[wire.RolloutView]](c, wire.PathRollouts).Items) == 1 })
	pause, resume := wire.Fill(wire.PathChannelPause, "stable"), wire.Fill(wire.PathChannelResume, "stable")
	why := wire.ActionRequest{Why: "maintenance"}
	c.want("POST", pause, wire.ActionRequest{}, 400, wire.SlugBadRequest)
	c.want("POST", resume, why, 409, wire.SlugConflict)
	c.want("POST", pause, why, 204, "")
	if v := get[wire.ChannelView](c, wire.Fill(wire.PathChannel, "stable")); v.Paused == nil || v.Paused.Who != "alice" || v.Paused.Why != "maintenance" {
		t.Errorf("the channel is %+v", v)
	}
	// A pause belongs to the channel and outlives a push.
	f.Publish("bb", fleettest.Closure("nixos-newer"))
	w.eventually("the newer rollout is held by the pause", func() bool {
		d := get[wire.Page[wire.Deferral]](c, wire.PathDeferrals)
		return len(d.Items) == 1 && d.Items[0].Gate == "paused" && d.Items[0].RolloutID == "stable@bb"
	})
	c.want("POST", resume, why, 204, "")
	c.want("POST", wire.Fill(wire.PathChannelPause, "nothing"), why, 404, wire.SlugNotFound)
	c.want("POST", wire.Fill(wire.PathRolloutResume, "stable@bb"), wire.ActionRequest{Why: "x", Hosts: []string{"host-1"}}, 409, wire.SlugConflict)
	c.want("POST", wire.Fill(wire.PathRolloutSkip, "stable@bb"), wire.ActionRequest{Why: "x", Hosts: []string{"host-1"}}, 204, "")
	c.want("POST", wire.PathRecoveryEnd, why, 409, wire.SlugConflict)
	c.want("POST", wire.PathQuarantineClear, wire.QuarantineClearRequest{Why: "x", Channel: "stable", Closure: newSystem}, 409, wire.SlugConflict)
	if q := get[wire.Page[wire.QuarantineView]](c, wire.PathQuarantine); len(q.Items) != 0 {
		t.Errorf("quarantine: %+v", q)
	}
	audit := get[wire.Page[wire.AuditView]](c, wire.PathAudit)
	verbs := ""
	for _, a := range audit.Items {
		verbs += a.Action + " " + a.Who + " " + a.Subject + "; "
	}
	if verbs != "paused alice stable; resumed alice stable; skipped alice stable@bb; " {
		t.Errorf("audit: %s", verbs)
	}
}

func TestHealthTellsTheTruth(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	c := w.nobody()
	var ready wire.Readiness
	code, body := c.do("GET", wire.PathReadyz, nil)
	w.ok(json.Unmarshal(body, &ready))
	if code != 503 || ready.Ready || len(ready.Awaiting) == 0 {
		t.Errorf("without documents: %d %s", code, body)
	}
	f.Publish("aa", newSystem)
	w.eventually("it is ready", func() bool { code, _ := c.do("GET", wire.PathReadyz, nil); return code == 200 })
	h := get[wire.Health](c, wire.PathHealthz)
	if !h.OK || !h.Ready || h.Version != "test" || time.Since(h.LastPlanAt) > time.Minute {
		t.Errorf("health is %+v", h)
	}
	// The rollout is opened by the plan that follows the documents.
	w.eventually("the rollout's host is counted", func() bool {
		return bytes.Contains(w.metrics(), []byte(`nixfleet_hosts{channel="stable",state="Pending"} 1`))
	})
	text := w.metrics()
	for _, name := range []string{"nixfleet_control_plane_commit_seconds_count", "nixfleet_recovering 0", "nixfleet_control_plane_request_seconds_bucket"} {
		if !bytes.Contains(text, []byte(name)) {
			t.Errorf("metrics lack %s", name)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// metrics is what the loopback listener says.
func (w *world) metrics() []byte {
	w.t.Helper()
	resp, err := http.Get(w.local + wire.PathMetrics)
	w.ok(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	w.ok(err)
	return text
}

// E12: a stop ends parked polls with 204, and loses nothing.
func TestStopEndsPollsAndKeepsEverything(t *testing.T) {
	f := fleettest.New(t, 1)
	w := serve(t, f)
	h := f.Hosts[0]
	agent := w.enrolled(h)
	order := get[wire.Order](agent, wire.PathDispatch+"?wait=20")
	agent.want("POST", wire.PathEvents, []byte(h.Converge("stable@aa", order.OrderID, oldSystem, newSystem)[0]), 204, "")
	polled := make(chan int, 1)
	started := time.Now()
	go func() {
		code, _ := agent.do("GET", wire.PathDispatch+"?wait=60", nil)
		polled <- code
	}()
	w.eventually("it is parked", func() bool {
		resp, err := http.Get(w.local + wire.PathMetrics)
		w.ok(err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		w.ok(err)
		return bytes.Contains(text, []byte("nixfleet_control_plane_parked_polls 1"))
	})
	http.DefaultClient.CloseIdleConnections()
	w.stop()
	if code := <-polled; code != 204 || time.Since(started) > 20*time.Second {
		t.Errorf("the poll ended with %d after %s", code, time.Since(started))
	}
	w.start()
	operator := w.operator()
	if v := get[wire.HostView](operator, wire.Fill(wire.PathHost, h.Name)); v.State != "Activating" || v.LastSeq != 1 {
		t.Errorf("after the restart the host is %+v", v)
	}
}

func ExampleConfig_Check() {
	err := controlplane.Config{DB: "mysql:x", ReleaseSource: []string{"d"}, TrustFile: "t", TLSCert: "c", TLSKey: "k", ClientCA: "a",
		AgentCertValidity: time.Second, Heartbeat: time.Minute, SourceInterval: time.Second}.Check()
	fmt.Println(err)
	// Output:
	// --db "mysql:x": sqlite:PATH is allowed
	// --agent-cert-validity "1s": at least 1m0s is allowed
}
