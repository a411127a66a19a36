package demo

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A program was killed when it begins anew without having said that it stops.
func TestRevivals(t *testing.T) {
	const began, ended, noise = `{"time":"2026-11-23T10:00:00Z","msg":"started"}`, `{"time":"2026-11-23T10:00:01Z","msg":"stopped"}`, `{"time":"2026-11-23T10:00:02Z","msg":"wor`
	for _, c := range []struct {
		name string
		log  string
		want int
	}{
		{"one that runs", began, 0},
		{"one that ended as asked", began + "\n" + ended + "\n" + began, 0},
		{"one that was killed", began + "\n" + noise + "\n" + began, 1},
		{"one that was killed twice", began + "\n" + began + "\n" + began, 2},
		{"one that was killed after it ended as asked", began + "\n" + ended + "\n" + began + "\n" + began, 1},
	} {
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, []byte(c.log+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := revivals(log, agentStarted)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: killed at %v, want %d times: %v", c.name, got, c.want, err)
		}
		for _, at := range got {
			if !at.Equal(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)) {
				t.Errorf("%s: killed at %v", c.name, at)
			}
		}
	}
}
