package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
)

// TestWaves is eight hosts at once: a canary, then three, then the rest, of which
// two at a time, because a budget names all of them.
func TestWaves(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	const hosts, atOnce = 8, 2
	l := Open(t)
	bin := l.Programs(false)
	program, err := os.ReadFile(filepath.Join(bin, "nixfleet-agent"))
	if err != nil {
		t.Fatal(err)
	}
	agent, cache := l.Agent(program), l.Cache("good")
	first, second := l.System("all", "1", agent, ""), l.System("all", "2", agent, "")
	cache.Push(first, second)
	f := l.Fleet(bin, 1, nil, nil, cache)

	names := make([]string, hosts)
	for i := range names {
		names[i] = fmt.Sprintf("web-%02d", i+1)
	}
	waveOf := map[string]int{}
	var waves []any
	for i, wave := range [][]string{names[:1], names[1:4], names[4:]} {
		for _, name := range wave {
			waveOf[name] = i
		}
		waves = append(waves, map[string]any{"hosts": wave, "soakMinutes": 0})
	}
	f.doc["waves"] = map[string]any{"stable": waves}
	f.doc["disruptionBudgets"] = []any{map[string]any{"selector": map[string]any{"all": true}, "maxInFlight": atOnce}}

	files := map[string]map[string]string{}
	systems := func(path string) map[string]string {
		all := map[string]string{}
		for _, name := range names {
			all[name] = path
		}
		return all
	}
	for _, name := range names {
		files[name] = f.Add(name)
	}
	enrolled := f.Release(systems(first))
	machines := map[string]*Host{}
	var all sync.WaitGroup
	for _, name := range names {
		machines[name] = l.Host(ctx, name, nil)
		machines[name].install(ctx, t, cache, first)
	}
	for _, name := range names {
		all.Go(func() {
			if err := machines[name].Reboot(ctx); err != nil {
				t.Error(err)
				return
			}
			f.Enrol(ctx, machines[name], files[name], map[string]string{
				"NIXFLEET_AGENT_CACHE_URL":     cache.URL,
				"NIXFLEET_AGENT_MIN_FREE_NIX":  "1MiB",
				"NIXFLEET_AGENT_MIN_FREE_BOOT": "1MiB",
			})
		})
	}
	all.Wait()
	converged := func(rollout string) {
		t.Helper()
		for _, name := range names {
			if err := Until(ctx, name+" to converge on "+rollout, func() (bool, error) {
				row, err := f.Host(ctx, rollout, name)
				return err == nil && row.State == lifecycle.Converged, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	converged(enrolled)

	began := time.Now()
	rollout := f.Release(systems(second))
	converged(rollout)
	took := time.Since(began)
	for _, name := range names {
		seen, err := machines[name].Observe(ctx)
		if err != nil || seen != On(second) {
			t.Errorf("FAIL: %s is on %v, %v", name, seen, err)
		}
	}
	started, ended := f.times(ctx, t, rollout, lifecycle.KindActivationStarted), f.times(ctx, t, rollout, lifecycle.KindConverged)
	if len(started) != hosts || len(ended) != hosts {
		t.Fatalf("FAIL: %d hosts began, %d converged", len(started), len(ended))
	}
	for name, at := range started {
		inFlight := 0
		for other, end := range ended {
			if waveOf[other] < waveOf[name] && end.After(at) {
				t.Errorf("FAIL: %s of wave %d began before %s of wave %d had converged", name, waveOf[name], other, waveOf[other])
			}
			if !started[other].After(at) && end.After(at) {
				inFlight++
			}
		}
		if inFlight > atOnce {
			t.Errorf("FAIL: %d hosts were under way when %s began", inFlight, name)
		}
	}
	order := slices.SortedFunc(maps.Keys(started), func(a, b string) int { return started[a].Compare(started[b]) })
	t.Logf("PASS eight hosts in three waves, two at a time, in the order %v, %.1f s", order, took.Seconds())
}

// times tells when each host's first event of a kind in a rollout was received.
func (f *Fleet) times(ctx context.Context, t testing.TB, rollout string, kind lifecycle.Kind) map[string]time.Time {
	t.Helper()
	events, err := f.AllEvents(ctx, rollout)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]time.Time{}
	for _, e := range events {
		if _, known := at[e.Hostname]; e.Kind == kind && !known {
			at[e.Hostname] = e.ReceivedAt
		}
	}
	return at
}
