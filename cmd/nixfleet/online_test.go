package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// plane answers as a control plane does, with what a test puts into it, over
// mutual TLS.
type plane struct {
	folder fleetdir.Folder
	config string // for --config

	mu      sync.Mutex
	answers map[string]any // by path
	posted  map[string]wire.ActionRequest
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{answers: map[string]any{}, posted: map[string]wire.ActionRequest{}}
	server := httptest.NewUnstartedServer(p)
	var err error
	p.folder, err = fleetdir.Create(filepath.Join(t.TempDir(), "f"), fleetdir.Options{
		Names: []string{"127.0.0.1"}, URL: "https://" + server.Listener.Addr().String(), Operator: "ada", Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(p.folder.ServerCert(), p.folder.ServerKey())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(p.folder.CACert())
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	p.config = p.folder.Config()
	return p
}

func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	role, _ := identity.RoleOf(r.TLS.PeerCertificates[0])
	answer, ok := p.answers[r.URL.Path]
	switch {
	case role != identity.Role{Kind: identity.Operator, Name: "ada"} || r.Header.Get(wire.HeaderProtocol) != "1":
		refuse(w, wire.Errorf(wire.SlugForbidden, "%v may not", role))
	case !ok:
		refuse(w, wire.Errorf(wire.SlugNotFound, "there is no %s", r.URL.Path))
	case r.Method == http.MethodPost:
		var action wire.ActionRequest
		if err := json.NewDecoder(r.Body).Decode(&action); err != nil {
			refuse(w, wire.Errorf(wire.SlugBadRequest, "%v", err))
			return
		}
		p.posted[r.URL.Path] = action
		w.WriteHeader(http.StatusNoContent)
	default:
		if pages, ok := answer.([]any); ok { // one page a member
			answer = pages[0]
			if after := r.URL.Query().Get(wire.QueryAfter); after != "" {
				answer = pages[int(after[0]-'0')]
			}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func refuse(w http.ResponseWriter, e *wire.Error) {
	w.WriteHeader(e.Status())
	_ = json.NewEncoder(w).Encode(e)
}

func (p *plane) set(path string, answer any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[path] = answer
}

// ask runs a verb against the plane.
func (p *plane) ask(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	return nixfleet(t, append(args, "--config", p.config)...)
}

func wantHas(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}

func TestStatusShowsChannelsAndHosts(t *testing.T) {
	p := newPlane(t)
	p.set("/v1/channels", wire.NewPage([]wire.ChannelView{{Channel: "stable", RolloutID: "stable@0123456789abcdef", State: "Active", Hosts: 2, Converged: 1}}, ""))
	p.set("/v1/hosts", []any{
		wire.NewPage([]wire.HostView{{Hostname: "web-01", Channel: "stable", State: lifecycle.Converged, Current: "00000000000000000000000000000001-sys-1"}}, "1"),
		wire.NewPage([]wire.HostView{{Hostname: "web-02", Channel: "stable", State: lifecycle.Pending, Why: "Its wave has not begun."}}, ""),
	})
	code, out, errOut := p.ask(t, "status")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	wantHas(t, out, "stable@0123456789ab ", "1/2", "web-01", "Converged", "000000-sys-1", "web-02", "Its wave has not begun.")
	if strings.Contains(out, "\x1b[") {
		t.Error("colour without a terminal")
	}
	code, out, _ = p.ask(t, "status", "--json")
	var answer struct {
		Channels []wire.ChannelView
		Hosts    []wire.HostView
	}
	if err := json.Unmarshal([]byte(out), &answer); code != 0 || err != nil || len(answer.Hosts) != 2 || len(answer.Channels) != 1 {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
}

func TestHostShow(t *testing.T) {
	p := newPlane(t)
	p.set("/v1/hosts/web-01", wire.HostView{Hostname: "web-01", State: lifecycle.Soaking, Why: "Its soak has not ended.", WaitingOn: []wire.WaitingOn{wire.WaitingOnSoak}, Probes: map[string]lifecycle.Status{"http": lifecycle.Pass},
		Enrolment: &wire.EnrolmentFailure{Kind: wire.BootstrapEnrollmentFailed, Reason: "the token has expired", At: time.Now()}})
	for _, args := range [][]string{{"host", "show", "web-01"}, {"status", "web-01"}} {
		code, out, _ := p.ask(t, args...)
		if code != 0 {
			t.Errorf("%v: exit %d", args, code)
		}
		wantHas(t, out, "Soaking", "Its soak has not ended.", "Waiting for the soak to end.", "probe http", "(EnrollmentFailed): the token has expired")
	}
	code, out, _ := p.ask(t, "why", "web-01")
	if code != 0 || !strings.HasPrefix(out, "web-01: Its soak has not ended.\n\n") {
		t.Errorf("why: exit %d: %s", code, out)
	}
	wantHas(t, out, "Waiting for the soak to end.", "probe http", "(EnrollmentFailed): the token has expired")
	p.set("/v1/hosts/web-02", wire.HostView{Hostname: "web-02", State: lifecycle.Converged, Target: "00000000000000000000000000000000-sys-1", Since: time.Now().Add(-time.Hour)})
	if _, out, _ := p.ask(t, "why", "web-02"); !strings.HasPrefix(out, "web-02: It is converged on 000000-sys-1, 1 h ago.\n") {
		t.Errorf("why of a converged host: %s", out)
	}
	code, _, errOut := p.ask(t, "host", "show", "web-99")
	if code != 1 || !strings.Contains(errOut, "there is no host web-99; nixfleet host list names them") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestRolloutVerbs(t *testing.T) {
	p := newPlane(t)
	view := wire.RolloutView{RolloutID: "stable@ab", State: "Failed", Wave: 0, Waves: 2, ByState: map[string]int{"Reverted": 1, "Pending": 1}, Why: "1 host failed."}
	p.set("/v1/rollouts", wire.NewPage([]wire.RolloutView{view}, ""))
	p.set("/v1/rollouts/stable@ab/lifecycle", wire.RolloutLifecycle{RolloutView: view})
	p.set("/v1/rollouts/stable@ab/hosts", wire.NewPage([]wire.RolloutHost{
		{Hostname: "web-01", State: lifecycle.Reverted, Failure: &wire.FailureView{Cause: lifecycle.CauseProbes, Detail: "http\nmore"}},
		{Hostname: "web-02", Wave: 1, State: lifecycle.Pending, Deferral: &wire.Deferral{Gate: "halted", Reason: "the rollout is halted"}},
	}, ""))
	event, err := wire.EncodeEvent(lifecycle.Event{Seq: 7, At: time.Unix(0, 0), Body: lifecycle.ProbeResult{ProbeName: "http", Status: lifecycle.Fail, FailureReason: "status 500"}})
	if err != nil {
		t.Fatal(err)
	}
	p.set("/v1/rollouts/stable@ab/events", wire.NewPage([]wire.EventView{{Hostname: "web-01", Seq: 7, Kind: lifecycle.KindProbeResult, Verdict: "stored", Event: event}}, ""))

	_, out, _ := p.ask(t, "rollout", "list")
	wantHas(t, out, "stable@ab", "Failed", "1/2", "1 pending, 1 reverted")
	_, out, _ = p.ask(t, "rollout", "show", "stable@ab")
	wantHas(t, out, "1 host failed.", "probes http\n", "halted: the rollout is halted")
	_, out, _ = p.ask(t, "rollout", "events", "stable@ab")
	wantHas(t, out, "ProbeResult", "http: fail status 500")
	code, _, errOut := p.ask(t, "rollout", "show", "stable@cd")
	if code != 1 || !strings.Contains(errOut, "there is no rollout stable@cd") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestRolloutWaitSaysHowItEnded(t *testing.T) {
	p := newPlane(t)
	for state, want := range map[string]int{"Terminal": 0, "Failed": 1, "Reverted": 1, "Superseded": 1, "Active": 3} {
		p.set("/v1/rollouts/stable@ab/lifecycle", wire.RolloutLifecycle{RolloutView: wire.RolloutView{RolloutID: "stable@ab", State: state, Waves: 1}})
		code, out, errOut := p.ask(t, "rollout", "wait", "stable@ab", "--timeout", "200ms", "--json")
		if code != want || !strings.Contains(out, `"state": "`+state+`"`) || !strings.Contains(errOut, "stable@ab: "+state) {
			t.Errorf("%s: exit %d, want %d: %s%s", state, code, want, out, errOut)
		}
	}
	// One that is about to open is waited for.
	if code, _, errOut := p.ask(t, "rollout", "wait", "stable@cd", "--timeout", "200ms"); code != 3 {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestChannelPauseIsAskedForWithItsReason(t *testing.T) {
	p := newPlane(t)
	p.set("/v1/channels/stable/pause", nil)
	p.set("/v1/channels/stable/resume", nil)
	code, out, errOut := p.ask(t, "channel", "pause", "stable", "--why", "moving house")
	if code != 0 || out != "stable is paused\n" {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if got := p.posted["/v1/channels/stable/pause"].Why; got != "moving house" {
		t.Errorf("why %q", got)
	}
	if code, out, _ := p.ask(t, "channel", "resume", "stable", "--why", "done"); code != 0 || out != "stable is resumed\n" {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, _, errOut := p.ask(t, "channel", "pause", "beta", "--why", "x"); code != 1 || !strings.Contains(errOut, "there is no channel beta") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestHostForgetIsAskedForWithItsReason(t *testing.T) {
	p := newPlane(t)
	p.set("/v1/hosts/web-01/forget", nil)
	code, out, errOut := p.ask(t, "host", "forget", "web-01", "--why", "sold")
	if code != 0 || !strings.HasPrefix(out, "web-01 is forgotten: ") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if got := p.posted["/v1/hosts/web-01/forget"].Why; got != "sold" {
		t.Errorf("why %q", got)
	}
	if code, _, errOut := p.ask(t, "host", "forget", "web-99", "--why", "sold"); code != 1 || !strings.Contains(errOut, "there is no host web-99; nixfleet host list names them") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestStrangersAndSilenceAreExplained(t *testing.T) {
	p := newPlane(t)
	other := newPlane(t)
	// The CA of another fleet.
	code, _, errOut := nixfleet(t, "status", "--config", p.config, "--ca-cert", other.folder.CACert())
	if code != 1 || !strings.Contains(errOut, "no answer from https://") || !strings.Contains(errOut, "certificate") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	// A certificate of another fleet.
	code, _, errOut = nixfleet(t, "status", "--config", p.config, "--client-cert", other.folder.OperatorCert(), "--client-key", other.folder.OperatorKey())
	if code != 1 || !strings.Contains(errOut, "no answer from https://") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	// Nobody listens.
	code, _, errOut = nixfleet(t, "status", "--config", p.config, "--cp-url", "https://127.0.0.1:1")
	if code != 1 || !strings.Contains(errOut, "no answer from https://127.0.0.1:1") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}
