package controlplane_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/wire"
)

// A forgotten host is refused, hidden and on record until it enrols with a token
// that was minted later; what it was given before never counts again.
func TestForgottenHostIsRefusedAndHiddenUntilItEnrolsAgain(t *testing.T) {
	f := fleettest.New(t, 2)
	w := serve(t, f)
	h := f.Hosts[0]
	agent, operator := w.enrolled(h), w.operator()
	forget := wire.Fill(wire.PathHostForget, h.Name)
	why := wire.ActionRequest{Why: "sold"}
	listed := func() bool {
		hosts := get[wire.Page[wire.HostView]](operator, wire.PathHosts).Items
		if len(hosts) == 0 {
			t.Fatal("no host is listed")
		}
		return slices.ContainsFunc(hosts, func(v wire.HostView) bool { return v.Hostname == h.Name })
	}

	operator.want("POST", wire.Fill(wire.PathHostForget, "host-99"), why, 404, wire.SlugNotFound)
	operator.want("POST", forget, wire.ActionRequest{}, 400, wire.SlugBadRequest)
	agent.want("GET", wire.PathWhoami, nil, 200, "")
	if !listed() {
		t.Error("it is not listed before")
	}

	operator.want("POST", forget, why, 204, "")
	operator.want("POST", forget, why, 409, wire.SlugConflict)
	request := wire.RenewRequest{CSRPem: w.enrolment(h, nil).CSRPem}
	refused := func() {
		t.Helper()
		agent.want("GET", wire.PathWhoami, nil, 403, wire.SlugRevoked)
		agent.want("POST", wire.PathHeartbeat, wire.HeartbeatRequest{Hostname: h.Name}, 403, wire.SlugRevoked)
		agent.want("POST", wire.PathRenew, request, 403, wire.SlugRevoked)
	}
	refused()
	if listed() {
		t.Error("it is still listed")
	}
	if v := get[wire.HostView](operator, wire.Fill(wire.PathHost, h.Name)); !slices.Contains(v.Conditions, wire.ConditionForgotten) || !strings.HasSuffix(v.Why, ": sold") {
		t.Errorf("asked for by name it is %+v", v)
	}
	audit := get[wire.Page[wire.AuditView]](operator, wire.PathAudit).Items
	if n := len(audit); n != 1 || audit[0].Action != "forgotten" || audit[0].Subject != h.Name || audit[0].Why != "sold" || audit[0].Who == "" {
		t.Errorf("the audit log: %+v", audit)
	}

	w.stop()
	w.start()
	w.eventually("it is ready", func() bool { code, _ := operator.do("GET", wire.PathReadyz, nil); return code == 200 })
	refused()

	token := f.Token(h)
	w.release("bb")
	var got wire.CertificateResponse
	w.eventually("the new token is allowed", func() bool {
		code, body := w.nobody().do("POST", wire.PathEnroll, w.enrolment(h, token))
		return code == http.StatusOK && json.Unmarshal(body, &got) == nil
	})
	w.agent(h, got.CertPem).want("GET", wire.PathWhoami, nil, 200, "")
	if !listed() {
		t.Error("it enrolled again and is not listed")
	}
	refused()
}
