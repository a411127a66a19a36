package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host/hosttest"
)

// TestSocket runs an agent whose control plane is away, and asks it what it does.
func TestSocket(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1 := cache.Closure("v1", hosttest.Obey)
	w := &world{t: t, cache: cache, dir: t.TempDir()}
	w.buildFiles()
	dials := make(chan string, 100)
	socket := filepath.Join(t.TempDir(), "run", "agent.sock")
	w.must(os.MkdirAll(filepath.Dir(socket), 0o755))
	w.must(os.WriteFile(socket, nil, 0o600)) // what an earlier agent left
	notified := make(chan string, 10)
	cfg := w.settings()
	cfg.Socket, cfg.MetricsListen = socket, "127.0.0.1:0"
	cfg.Notify = func(state string) { notified <- state }
	a, err := agent.New(cfg, cache.NewMachine(v1), func(_ context.Context, _, address string) (net.Conn, error) {
		dials <- address
		return nil, errors.New("no route")
	})
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	if state := <-notified; state != "READY=1" {
		t.Errorf("the first notification is %s", state)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	get := func(path string) string {
		t.Helper()
		resp, err := client.Get("http://agent" + path)
		w.must(err)
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		w.must(err)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
		return string(raw)
	}
	<-dials // it has tried
	var status agent.Status
	for end := time.Now().Add(10 * time.Second); len(status.WaitingOn) == 0 || status.Current == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("status: %+v", status)
		}
		w.must(json.Unmarshal([]byte(get(agent.SocketStatus)), &status))
	}
	if status.State != "Idle" || status.Current != v1 || status.MachineID != host1 || status.WaitingOn[0].On != "control-plane" {
		t.Errorf("status: %+v", status)
	}
	for _, want := range []string{`nixfleet_agent_rollout_state{rollout="",state="Idle"} 1`, `nixfleet_agent_waiting_on{on="control-plane"} 1`, "nixfleet_agent_outbox_events 0"} {
		if got := get(agent.SocketMetrics); !strings.Contains(got, want) {
			t.Errorf("the metrics have no %s:\n%s", want, got)
		}
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	resp, err := client.Post("http://agent"+agent.SocketPoll, "", nil)
	w.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("poll: %s", resp.Status)
	}

	cancel()
	select {
	case err := <-done:
		w.must(err)
	case <-time.After(20 * time.Second):
		t.Fatal("not stopped in time")
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
