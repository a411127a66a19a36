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
