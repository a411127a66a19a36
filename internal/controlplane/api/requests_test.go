package api_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/controlplane/api"
	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/wire"
)

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
}

// C11: the version is looked at before anything else: required where agents
// speak, and checked elsewhere when it is there.
func TestTheProtocolsVersion(t *testing.T) {
	f := fleettest.New(t, 1)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	nobody := p.client(nil)
	required := 0
	for route, r := range api.RouteTable() {
		method, path, _ := strings.Cut(route, " ")
		if want := path == wire.PathEnroll || strings.HasPrefix(path, "/v1/agent/"); r.Protocol != want {
			t.Errorf("%s: the version is required: %v", route, r.Protocol)
		}
		if r.Protocol {
			required++
		}
		path = fill(path)
		for _, c := range []struct {
			sent    []string
			verdict verdict
		}{
			{[]string{"2"}, verdict{426, wire.SlugProtocol}},
			{[]string{"0"}, verdict{426, wire.SlugProtocol}},
			{[]string{"-1"}, verdict{426, wire.SlugProtocol}},
			{[]string{"99999999999999999999"}, verdict{426, wire.SlugProtocol}},
			{[]string{"one"}, verdict{400, wire.SlugProtocolMissing}},
			{[]string{"1.0"}, verdict{400, wire.SlugProtocolMissing}},
			{[]string{""}, verdict{400, wire.SlugProtocolMissing}},
			{[]string{"1", "1"}, verdict{400, wire.SlugProtocolMissing}},
		} {
			nobody.header[wire.HeaderProtocol] = c.sent
			if got, _, _ := nobody.ask(method, path, nil); got != c.verdict {
				t.Errorf("%s with version %q: %+v, want %+v", route, c.sent, got, c.verdict)
			}
		}
		delete(nobody.header, wire.HeaderProtocol)
		got, _, _ := nobody.ask(method, path, nil)
		if missing := got == (verdict{400, wire.SlugProtocolMissing}); missing != r.Protocol {
			t.Errorf("%s without a version: %+v", route, got)
		}
	}
	if required < 9 {
		t.Errorf("only %d routes require the version", required)
	}
}

// fill gives a path's wildcards some values.
func fill(path string) string {
	return wire.Fill(path, slices.Repeat([]string{"x"}, strings.Count(path, "{"))...)
}

// A path answers the methods of its routes, and names them to whoever tries
// another one; HEAD is the GET of what can be read twice.
func TestMethods(t *testing.T) {
	f := fleettest.New(t, 1)
	token := f.Token(f.Hosts[0])
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	agent, nobody := p.enrolled(f.Hosts[0], token), p.client(nil)
	paths := map[string][]string{}
	for route := range api.RouteTable() {
		method, path, _ := strings.Cut(route, " ")
		paths[path] = append(paths[path], method)
	}
	for path, methods := range paths {
		allowed := slices.Clone(methods)
		if slices.Contains(methods, http.MethodGet) && path != wire.PathDispatch {
			allowed = append(allowed, http.MethodHead)
		}
		slices.Sort(allowed)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			got, header, _ := nobody.ask(method, fill(path), nil)
			refused := got.code == http.StatusMethodNotAllowed
			if refused == slices.Contains(allowed, method) {
				t.Errorf("%s %s: %+v", method, path, got)
			}
			if want := strings.Join(allowed, ", "); refused && header.Get("Allow") != want {
				t.Errorf("%s %s allows %q, want %q", method, path, header.Get("Allow"), want)
			}
		}
	}
	// HEAD takes no order away.
	agent.want("HEAD", wire.PathDispatch, nil, 405, "")
	got, header, body := agent.ask("HEAD", wire.PathFleet, nil)
	if got.code != 200 || len(body) != 0 || header.Get("ETag") == "" {
		t.Errorf("HEAD of the fleet document: %+v %v %q", got, header, body)
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/agent/", "/v1/hosts/", "/v1/Hosts", "/v2/hosts", "/v1/hosts/x/y/z"} {
		nobody.want("GET", path, nil, 404, wire.SlugNotFound)
		agent.want("POST", path, nil, 404, wire.SlugNotFound)
	}
}

// Every body has its limit, on every route that reads one.
func TestBodies(t *testing.T) {
	f := fleettest.New(t, 1)
	token := f.Token(f.Hosts[0])
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	agent, operator := p.enrolled(f.Hosts[0], token), p.operator()
	limits := map[string]int64{wire.PathEvents: 256 << 10, wire.PathEventsBatch: 4 << 20}
	read := 0
	for route, r := range api.RouteTable() {
		method, path, _ := strings.Cut(route, " ")
		if method != http.MethodPost {
			continue
		}
		read++
		limit := limits[path]
		if limit == 0 {
			limit = 64 << 10
		}
		if r.Limit != limit {
			t.Errorf("%s takes %d bytes, want %d", route, r.Limit, limit)
		}
		c, target := operator, strings.NewReplacer("{id}", "stable@aa", "{host}", f.Hosts[0].Name, "{channel}", fleettest.Channel).Replace(path)
		if strings.HasPrefix(path, "/v1/agent/") || path == wire.PathEnroll {
			c = agent
		}
		c.want(method, target, bytes.Repeat([]byte(" "), int(limit)+1), 413, wire.SlugTooLarge)
		for _, body := range []string{strings.Repeat(" ", int(limit)), "", "{", "[]", `{} {}`} {
			got, _, answer := c.ask(method, target, []byte(body))
			if got.code != 400 && got.code != 422 {
				t.Errorf("%s with %.20q: %+v %s", route, body, got, answer)
			}
		}
	}
	if read < 15 {
		t.Errorf("only %d routes read a body", read)
	}
}

// What a request says about its length is not believed: a body that would be too
// long is refused before it is sent, one that ends early is no request, and what
// follows the end is not part of it.
func TestLengthsThatLie(t *testing.T) {
	f := fleettest.New(t, 1)
	h := f.Hosts[0]
	token := f.Token(h)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	var got wire.CertificateResponse
	decode(t, p.client(nil).want("POST", wire.PathEnroll, enrolment(t, h, token), 200, ""), &got)
	cert := pair(t, h, got)

	// raw sends bytes over a connection of their own, which may then end, and gives
	// the answer.
	raw := func(text string, ends bool) string {
		t.Helper()
		conn, err := tls.Dial("tcp", p.address, &tls.Config{RootCAs: p.roots, Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}})
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second))) // an answer that never comes is one, too
		_, err = io.WriteString(conn, text)
		must(t, err)
		if ends {
			must(t, conn.CloseWrite())
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		var e wire.Error
		_ = json.Unmarshal(body, &e) // net/http's own refusals have no body of ours
		return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", e.Slug))
	}
	beat := `{"hostname":"` + h.Name + `"}`
	post := func(header, body string) string {
		return "POST " + wire.PathHeartbeat + " HTTP/1.1\r\nHost: cp\r\nConnection: close\r\n" + wire.HeaderProtocol + ": 1\r\n" + header + "\r\n\r\n" + body
	}
	for _, c := range []struct {
		name, text string
		ends       bool
		want       string
	}{
		{"true", post(fmt.Sprintf("Content-Length: %d", len(beat)), beat), false, "200"},
		{"too long, and nothing sent", post("Content-Length: 1000000000", ""), false, "413 too-large"},
		{"more than is sent", post("Content-Length: 1000", beat), true, "400 bad-request"},
		{"less than is sent", post("Content-Length: 2", beat), false, "400 bad-request"}, // {" is no JSON
		{"negative", post("Content-Length: -1", beat), false, "400"},
		{"two that differ", post("Content-Length: 2\r\nContent-Length: 3", beat), false, "400"},
		{"chunked as well", post("Content-Length: 1\r\nTransfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(beat), beat)), false, "200"},
		{"chunked, too long", post("Transfer-Encoding: chunked", strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", 8<<10, strings.Repeat(" ", 8<<10)), 9)), false, "413 too-large"},
		{"chunked, broken off", post("Transfer-Encoding: chunked", "10\r\nabc"), true, "400 bad-request"},
	} {
		if got := raw(c.text, c.ends); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// The listener without TLS tells health and metrics, and nothing else.
func TestTheLocalListener(t *testing.T) {
	p := serve(t, fleettest.New(t, 1))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	local := &http.Client{Transport: transport}
	open := []string{wire.PathHealthz, wire.PathReadyz, wire.PathMetrics}
	for route := range api.RouteTable() {
		method, path, _ := strings.Cut(route, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.local+fill(path), nil)
		must(t, err)
		resp, err := local.Do(req)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		if slices.Contains(open, path) {
			if resp.StatusCode != 200 && resp.StatusCode != 503 {
				t.Errorf("%s: %d", route, resp.StatusCode)
			}
			continue
		}
		var e wire.Error
		decode(t, body, &e)
		if resp.StatusCode != 404 || e.Slug != wire.SlugNotFound {
			t.Errorf("%s: %d %s", route, resp.StatusCode, body)
		}
	}
}
