package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// saysHold tells whether the last heartbeat that said what is waited for says
// that the host is held.
func (c *controlPlane) saysHold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range slices.Backward(c.beats) {
		if b.WaitingOn != nil {
			return slices.Contains(b.WaitingOn, wire.WaitingOnHold)
		}
	}
	return false
}

// TestAHoldKeepsNewTargetsAway, over a restart, until it ends by itself; what was
// under way goes on.
func TestAHoldKeepsNewTargetsAway(t *testing.T) {
	story(t, func(w *world) {
		first := w.release(w.v2)
		w.until(first, lifecycle.Soaking)
		w.stop()
		j, err := journal.Open(w.path("state/journal.db"))
		w.must(err)
		w.must(j.Update(func(tx *journal.Tx) error {
			self, err := tx.Self()
			self.Hold = &journal.Hold{Reason: "the disk is swapped", Since: time.Now(), Until: time.Now().Add(2 * time.Hour)}
			return errors.Join(err, tx.PutSelf(self))
		}))
		w.must(j.Close())
		w.start()

		second := w.release(w.v3)
		w.eventually("it is refused", func() bool { return w.cp.refusals() == 1 })
		if r := w.cp.rejects[0]; r.Reason != wire.RejectHeld || r.RolloutID != second || r.RetryAfterSecs != 300 ||
			!strings.Contains(r.Detail, "the disk is swapped") || !strings.Contains(r.Detail, "nixfleet-agent release") {
			t.Errorf("refused as %+v", r)
		}
		w.eventually("a heartbeat says so", w.cp.saysHold)
		w.until(first, lifecycle.Converged)
		if kinds := w.cp.kinds(second); kinds != "" || w.current() != w.v2 {
			t.Errorf("in spite of the hold: %s, runs %s", kinds, w.current())
		}
		time.Sleep(2 * time.Hour)
		w.eventually("a heartbeat says that it is over", func() bool { return !w.cp.saysHold() })
		w.order(second)
		w.until(second, lifecycle.Converged)
	})
}

// TestHoldOnTheSocket: what is asked for is checked, kept and shown, and ends when
// that is asked for.
func TestHoldOnTheSocket(t *testing.T) {
	cache := hosttest.NewCache(t)
	w := &world{t: t, cache: cache, dir: t.TempDir()}
	w.buildFiles()
	client, stop := w.onSocket(cache)
	post := func(path, body string, code int, answer any) {
		t.Helper()
		resp, err := client.Post("http://agent"+path, "application/json", strings.NewReader(body))
		w.must(err)
		defer resp.Body.Close()
		if resp.StatusCode != code {
			t.Errorf("%s %s: %s", path, body, resp.Status)
		}
		if code == http.StatusOK {
			w.must(json.NewDecoder(resp.Body).Decode(answer))
		}
	}
	status := func() (s agent.Status) {
		t.Helper()
		resp, err := client.Get("http://agent" + agent.SocketStatus)
		w.must(err)
		defer resp.Body.Close()
		w.must(json.NewDecoder(resp.Body).Decode(&s))
		return s
	}
	waits := func(s agent.Status) bool {
		return slices.ContainsFunc(s.WaitingOn, func(on agent.Waiting) bool { return on.On == wire.WaitingOnHold && on.Why == "a new disk" })
	}
	for _, body := range []string{
		`{"secs": 60}`, `{"reason": " ", "secs": 60}`, `{"reason": "x"}`, `{"reason": "x", "secs": -1}`, `{"reason": "x", "secs": 9000000}`,
		`{"reason": "x\u001b[2J", "secs": 60}`, `{"reason": "` + strings.Repeat("x", 513) + `", "secs": 60}`, `{"reason": "x", "secs": 60, "force": true}`,
	} {
		post(agent.SocketHold, body, http.StatusBadRequest, nil)
	}
	if s := status(); s.Hold != nil || waits(s) {
		t.Errorf("held by what was refused: %+v", s.Hold)
	}
	var none agent.ReleaseResponse
	if post(agent.SocketRelease, `{}`, http.StatusOK, &none); none.Released != nil {
		t.Errorf("released: %+v", none.Released)
	}

	var held agent.HoldResponse
	post(agent.SocketHold, `{"reason": "a new disk", "secs": 3600}`, http.StatusOK, &held)
	if got := held.Hold; got.Reason != "a new disk" || got.Until.Sub(got.Since) != time.Hour || time.Since(got.Since).Abs() > time.Minute {
		t.Errorf("held as %+v", got)
	}
	if s := status(); s.Hold == nil || *s.Hold != held.Hold || !waits(s) {
		t.Errorf("status says of the hold: %+v, waits: %+v", s.Hold, s.WaitingOn)
	}
	stop()
	w.journal(func(tx *journal.Tx) {
		if self, err := tx.Self(); err != nil || self.Hold == nil || *self.Hold != held.Hold {
			t.Errorf("the next agent finds %+v, %v", self.Hold, err)
		}
	})

	client, stop = w.onSocket(cache)
	defer stop()
	var released agent.ReleaseResponse
	if post(agent.SocketRelease, `{}`, http.StatusOK, &released); released.Released == nil || *released.Released != held.Hold {
		t.Errorf("released: %+v", released.Released)
	}
	if s := status(); s.Hold != nil || waits(s) {
		t.Errorf("held after the release: %+v", s.Hold)
	}
}

// onSocket runs an agent that no control plane answers, and gives who asks it.
func (w *world) onSocket(cache *hosttest.Cache) (client *http.Client, stop func()) {
	w.t.Helper()
	if w.machine == "" {
		w.machine = cache.NewMachine(cache.Closure("v1", hosttest.Obey)).Dir()
	}
	cfg := w.settings()
	cfg.Socket = filepath.Join(w.t.TempDir(), "agent.sock")
	ready := make(chan string, 10)
	cfg.Notify = func(state string) { ready <- state }
	a, err := agent.New(cfg, cache.Open(w.machine), func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") })
	w.must(err)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-ready
	return clientOf(cfg.Socket), func() {
		w.t.Helper()
		cancel()
		select {
		case err := <-done:
			w.must(err)
		case <-time.After(20 * time.Second):
			w.t.Fatal("not stopped in time")
		}
	}
}
