package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// running is an agent that is nothing but its reducer and its socket.
func running(t *testing.T) (a *Agent, tell func(rollout string, body lifecycle.Body)) {
	t.Helper()
	r := switching(t)
	a = &Agent{log: slog.New(slog.DiscardHandler), journal: r.journal, reducer: r, pollNow: newBroadcast()}
	go r.run()
	t.Cleanup(func() {
		close(r.stop)
		<-r.stopped
	})
	return a, func(rollout string, body lifecycle.Body) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.submit(ctx, "test", func(t *turn) error { return t.event(rollout, body) }); err != nil {
			t.Fatalf("the reducer did not take %s: %v", body.Kind(), err)
		}
	}
}

// brief is a line of the events as rollout, number and kind.
func brief(t *testing.T, line []byte) string {
	t.Helper()
	var envelope wire.Envelope
	if err := json.Unmarshal(line, &envelope); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	event, err := wire.DecodeEvent(envelope.Event)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %d %s", envelope.RolloutID, event.Seq, event.Body.Kind())
}

// TestEventsAreFollowed on the socket: what is there, the oldest first, then what
// comes.
func TestEventsAreFollowed(t *testing.T) {
	a, tell := running(t)
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	get := func(query string) *http.Response {
		t.Helper()
		resp, err := client.Get("http://agent" + SocketEvents + query)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	followed := bufio.NewScanner(get("?follow=1").Body)
	expect := func(lines *bufio.Scanner, want string) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no line, want %s: %v", want, lines.Err())
		}
		if got := brief(t, lines.Bytes()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	expect(followed, id+" 1 DispatchAck")
	expect(followed, id+" 2 ActivationStarted")
	tell(id, lifecycle.ActivationCompleted{ObservedCurrentClosure: wants, BootID: "b"})
	expect(followed, id+" 3 ActivationCompleted")

	// A rollout that comes is followed as well, and order is kept across the two.
	second := enter(t, a.reducer, wants, 1)
	err = a.reducer.submit(t.Context(), "test", func(t *turn) error {
		t.next.rollouts = append(t.next.rollouts, &entry{Rollout: journal.Rollout{Host: second}, since: t.now})
		return t.event(second.Rollout, lifecycle.DispatchAck{CurrentClosureAtDispatch: wants})
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(followed, second.Rollout+" 1 DispatchAck")
	tell(id, lifecycle.Confirmed{BootID: "b", Via: "control-plane"})
	expect(followed, id+" 4 Confirmed")

	all := bufio.NewScanner(get("").Body)
	for _, want := range []string{id + " 1 DispatchAck", id + " 2 ActivationStarted", id + " 3 ActivationCompleted", second.Rollout + " 1 DispatchAck", id + " 4 Confirmed"} {
		expect(all, want)
	}
	if all.Scan() || all.Err() != nil {
		t.Errorf("without follow it goes on: %q, %v", all.Text(), all.Err())
	}
	if resp := get("?follow=yes"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("follow=yes: %s", resp.Status)
	}
}

// stuck is a client that reads nothing until it goes.
type stuck struct {
	*httptest.ResponseRecorder
	wrote chan struct{} // closed at the first byte
	gone  chan struct{}
}

func (s *stuck) Write([]byte) (int, error) {
	close(s.wrote)
	<-s.gone
	return 0, net.ErrClosed
}

func (s *stuck) SetWriteDeadline(time.Time) error { return nil }

// TestASlowClientDoesNotSlowTheReducer, however much is committed meanwhile.
func TestASlowClientDoesNotSlowTheReducer(t *testing.T) {
	a, tell := running(t)
	client := &stuck{ResponseRecorder: httptest.NewRecorder(), wrote: make(chan struct{}), gone: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.serveEvents(client, httptest.NewRequest(http.MethodGet, SocketEvents+"?follow=1", nil))
	}()
	<-client.wrote
	for range 100 {
		tell(id, lifecycle.Notice{Code: lifecycle.NoticeJournalLost, Detail: strings.Repeat("x", 4000)})
	}
	close(client.gone)
	<-ended
}

// taker is a client that takes all.
type taker struct{ *httptest.ResponseRecorder }

func (taker) SetWriteDeadline(time.Time) error { return nil }

func TestFollowingEndsWhenTheClientGoes(t *testing.T) {
	a, _ := running(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.serveEvents(taker{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, SocketEvents+"?follow=1", nil).WithContext(ctx))
	}()
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}
