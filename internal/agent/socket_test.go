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
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
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

	client := clientOf(socket)
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
	for _, want := range []string{`nixfleet_agent_state{state="Idle"} 1`, `nixfleet_agent_waiting_on{on="control-plane"} 1`, "nixfleet_agent_outbox_events 0"} {
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

func clientOf(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// TestUnquarantineOnTheSocket: status shows what is in quarantine, and nothing
// that is over; it is lifted by closure, for good.
func TestUnquarantineOnTheSocket(t *testing.T) {
	cache := hosttest.NewCache(t)
	v1, v2, v3 := cache.Closure("v1", hosttest.Obey), cache.Closure("v2", hosttest.Obey), cache.Closure("v3", hosttest.Obey)
	w := &world{t: t, cache: cache, dir: t.TempDir()}
	w.buildFiles()
	j, err := journal.Open(w.path("state/journal.db"))
	w.must(err)
	held := func(c fleet.Closure, until time.Duration) journal.Quarantine {
		return journal.Quarantine{
			Quarantine: lifecycle.Quarantine{Channel: channel, Closure: c, Rollout: "stable@01"},
			Why:        "probes: app", Until: time.Now().Add(until).UTC(), Count: 1,
		}
	}
	w.must(j.Update(func(tx *journal.Tx) error {
		return tx.PutSelf(journal.Self{Quarantine: []journal.Quarantine{held(v1, -time.Hour), held(v2, time.Hour), held(v3, time.Hour)}})
	}))
	w.must(j.Close())
	cfg := w.settings()
	cfg.Socket = filepath.Join(t.TempDir(), "agent.sock")
	ready := make(chan string, 10)
	cfg.Notify = func(state string) { ready <- state }
	a, err := agent.New(cfg, cache.NewMachine(v1), func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") })
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-ready

	client := clientOf(cfg.Socket)
	quarantined := func() (closures []fleet.Closure) {
		t.Helper()
		resp, err := client.Get("http://agent" + agent.SocketStatus)
		w.must(err)
		defer resp.Body.Close()
		var status agent.Status
		w.must(json.NewDecoder(resp.Body).Decode(&status))
		for _, q := range status.Quarantine {
			closures = append(closures, q.Closure)
			if q.Why != "probes: app" || q.Until.IsZero() {
				t.Errorf("status says too little: %+v", q)
			}
		}
		return closures
	}
	lift := func(body string, code int, want ...fleet.Closure) {
		t.Helper()
		resp, err := client.Post("http://agent"+agent.SocketUnquarantine, "application/json", strings.NewReader(body))
		w.must(err)
		defer resp.Body.Close()
		if resp.StatusCode != code {
			t.Errorf("%s: %s", body, resp.Status)
		}
		var answer agent.UnquarantineResponse
		if code == http.StatusOK {
			w.must(json.NewDecoder(resp.Body).Decode(&answer))
		}
		var lifted []fleet.Closure
		for _, q := range answer.Lifted {
			lifted = append(lifted, q.Closure)
		}
		if !slices.Equal(lifted, want) {
			t.Errorf("%s lifts %v, want %v", body, lifted, want)
		}
	}
	if got := quarantined(); !slices.Equal(got, []fleet.Closure{v2, v3}) {
		t.Errorf("in quarantine: %v", got)
	}
	lift(`{"closure": "../../etc"}`, http.StatusBadRequest)
	lift(`{"closures": []}`, http.StatusBadRequest)
	lift(`{"closure": "`+string(v1)+`"}`, http.StatusNotFound)
	lift(`{"closure": "`+string(v3)+`"}`, http.StatusOK, v3)
	if got := quarantined(); !slices.Equal(got, []fleet.Closure{v2}) {
		t.Errorf("after one was lifted: %v", got)
	}
	lift(`{}`, http.StatusOK, v2)
	lift(`{}`, http.StatusOK)
	if got := quarantined(); got != nil {
		t.Errorf("after all were lifted: %v", got)
	}

	cancel()
	select {
	case err := <-done:
		w.must(err)
	case <-time.After(20 * time.Second):
		t.Fatal("not stopped in time")
	}
	w.journal(func(tx *journal.Tx) {
		self, err := tx.Self()
		if err != nil || len(self.Quarantine) != 1 || self.Quarantine[0].Closure != v1 {
			t.Errorf("the next agent finds %+v, %v", self.Quarantine, err)
		}
	})
}
