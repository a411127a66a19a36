package agent

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent/guard"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/lifecycle"
)

// quiet is a machine on which nothing can be done.
type quiet struct {
	host.Machine
	dir string
}

func (m quiet) BootDir() string      { return m.dir }
func (m quiet) Clock() time.Duration { return time.Hour }

// An agent whose reducer hangs is no living agent, whatever else of it runs.
func TestOnlyAReducerThatAnswersIsASignOfLife(t *testing.T) {
	for _, answers := range []bool{true, false} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			cfg := Config{Log: log, StateDir: dir, Guard: []string{"/agent"}}
			a := &Agent{cfg: cfg, log: log, machine: quiet{dir: dir}, guardTurn: make(chan struct{}, 1)}
			a.reducer = newReducer(cfg, nil, nil, &state{facts: &host.Facts{BootID: "boot-1"}})
			if answers {
				go a.reducer.run()
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			e := &entry{}
			e.Host.Rollout = "r"
			go func() { ended <- a.keepGuard(ctx, e, lifecycle.Guard{AliveSecs: 120, BootOnly: true}) }()
			time.Sleep(time.Minute)
			synctest.Wait()
			cancel()
			<-ended
			if answers {
				close(a.reducer.stop)
				<-a.reducer.stopped
			}
		})
		_, err := os.Stat(filepath.Join(dir, "alive"))
		if lives := err == nil; lives != answers {
			t.Errorf("the reducer answers: %v; a sign of life: %v", answers, lives)
		}
		if held := (guard.Files{StateDir: dir}).Held(); held != answers {
			t.Errorf("the reducer answers: %v; a lease: %v", answers, held)
		}
	}
}

// An agent that dies again and again, each time before it has got anywhere, is no
// living agent: the guard must hear nothing of it. The first lease is another
// thing: without a sign of life its guard would wait for the whole switch.
func TestAnAgentThatKeepsDyingIsNoSignOfLife(t *testing.T) {
	for _, c := range []struct {
		name  string
		lease bool // there is one already
		lives time.Duration
		want  bool
	}{
		{"it arms the first lease", false, time.Second, true},
		{"it dies after 20 s", true, 20 * time.Second, false},
		{"it lives", true, 2 * time.Minute, true},
	} {
		dir := t.TempDir()
		if c.lease {
			if err := (guard.Files{StateDir: dir}).Write(guard.Lease{Rollout: "r", Agent: "/agent"}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Test(t, func(t *testing.T) {
			for range 3 {
				log := slog.New(slog.NewTextHandler(io.Discard, nil))
				cfg := Config{Log: log, StateDir: dir, Guard: []string{"/agent"}}
				a := &Agent{cfg: cfg, log: log, machine: quiet{dir: dir}, guardTurn: make(chan struct{}, 1), started: time.Now()}
				a.reducer = newReducer(cfg, nil, nil, &state{facts: &host.Facts{BootID: "boot-1"}})
				go a.reducer.run()
				ctx, cancel := context.WithTimeout(t.Context(), c.lives)
				e := &entry{}
				e.Host.Rollout = "r"
				a.keepGuard(ctx, e, lifecycle.Guard{AliveSecs: 120, BootOnly: true})
				cancel()
				close(a.reducer.stop)
				<-a.reducer.stopped
			}
		})
		_, err := os.Stat(filepath.Join(dir, "alive"))
		if told := err == nil; told != c.want {
			t.Errorf("%s: a sign of life: %v", c.name, told)
		}
	}
}
