package lab

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// TestFetch is a host whose cache is broken in every way. No failed fetch changes
// what runs; what can come right is waited for, and taken back by a newer release.
func TestFetch(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{})

	hung := s.System("2", "")
	asked := s.Cache.Hang()
	r := s.Release(hung)
	s.Eventually("the cache to hang", asked)
	after := s.System("3", "")
	newer := s.Fleet.Release(map[string]string{soloHost: after})
	s.Until("the newer release to take over from a fetch that hangs", r, lifecycle.Superseded)
	s.Verdict("the cache hangs, and a newer release takes over", r, On(s.First))
	s.Cache.Mend()
	s.Ended("the cache answers again, and the newer release converges", newer, lifecycle.Converged, "", after)
	on := after

	for i, c := range []struct {
		what  string
		fault http.HandlerFunc
	}{
		{"the cache does not have it", http.NotFound},
		{"the cache is broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{"an archive is corrupted", s.Cache.Corrupt},
		{"the connection breaks in the middle", s.Cache.Cut},
	} {
		s.Cache.Break(c.fault)
		system := s.System(string(rune('4'+i)), "")
		r := s.Release(system)
		why := s.Waits(wire.WaitingOnCache)
		s.Verdict(c.what+": "+why, r, On(on))
		s.Cache.Mend()
		s.Ended(c.what+", and then it is well", r, lifecycle.Converged, "", system)
		on = system
	}

	s.Cache.Break(s.Cache.Slow)
	slow := s.System("8", "")
	s.Ended("the cache is slow", s.Release(slow), lifecycle.Converged, "", slow)
	s.Cache.Mend()

	stranger := s.lab.Cache("stranger")
	foreign := s.lab.System(soloHost, "9", s.agent, "")
	stranger.Push(foreign)
	s.Cache.Break(stranger.ServeHTTP)
	s.Ended("a stranger has signed it", s.Release(foreign), lifecycle.Failed, lifecycle.CauseFetch, slow)
	if live := s.MadeLive(); live != "3 4 5 6 7 8" {
		t.Errorf("FAIL: made live: %s", live)
	}
}

// TestPrefetch is a host that may not have its order yet, and has fetched the target
// when it comes: the cache is not needed any more then, and garbage is collected
// around it.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Environment: map[string]string{"NIXFLEET_AGENT_PREFETCH": "true"}})
	s.Check(s.Fleet.Client.Post(s.Ctx, wire.Fill(wire.PathChannelPause, "stable"), wire.ActionRequest{Why: "not yet"}, nil))
	second := s.System("2", "")
	r := s.Release(second)
	s.Eventually("the target to be fetched ahead of its order", func() bool {
		_, err := s.Exec(s.Ctx, "nix-store", "--check-validity", second)
		return err == nil
	})
	s.Run("nix-collect-garbage")
	s.Run("nix-store", "--check-validity", second)
	if row := s.Row(r); row.State != lifecycle.Pending {
		t.Errorf("FAIL: without an order it is %s", row.State)
	}
	s.Verdict("fetched, and nothing else", r, On(s.First))
	s.Cache.Break(http.NotFound)
	s.Check(s.Fleet.Client.Post(s.Ctx, wire.Fill(wire.PathChannelResume, "stable"), wire.ActionRequest{Why: "now"}, nil))
	s.Ended("the cache has lost it, and the host has it", r, lifecycle.Converged, "", second)
}

// TestPowerCutAfterFetch cuts the power right after a fetch. What counts as fetched
// is on the disk; and when it is not, as after a Nix that does not sync, it is found
// out and repaired.
func TestPowerCutAfterFetch(t *testing.T) {
	t.Parallel()
	s := NewSolo(t, SoloConfig{Crashpoints: true})
	program := func(root, system string) string { return filepath.Join(root, system, "bin/switch-to-configuration") }

	for i, c := range []struct {
		what    string
		prepare func(system string)
	}{
		{"a power cut right after the fetch", func(string) {}},
		{"a power cut right after the fetch of what somebody else had just fetched without a sync", func(system string) {
			s.Run("nix-store", "--realise", system, "--option", "substituters", s.Cache.URL, "--option", "trusted-public-keys", s.Cache.Key)
		}},
	} {
		durable := s.System(fmt.Sprint(i+2), "")
		s.arm("stop:activation/fetched")
		c.prepare(durable)
		r := s.Release(durable)
		s.reached("stop", "activation/fetched")
		s.PowerCut(func(root string) error {
			info, err := os.Stat(program(root, durable))
			if err == nil && info.Size() == 0 {
				t.Error("FAIL: what was fetched is empty after the power cut")
			}
			return err
		})
		s.Ended(c.what, r, lifecycle.Converged, "", durable)
	}

	lost := s.System("4", "")
	s.arm("stop:activation/fetched")
	r := s.Release(lost)
	s.reached("stop", "activation/fetched")
	s.PowerCut(func(root string) error {
		name := program(root, lost)
		if err := os.Chmod(name, 0o755); err != nil {
			return err
		}
		return os.Truncate(name, 0)
	})
	s.Ended("empty files after a power cut are fetched again", r, lifecycle.Converged, "", lost)
	s.Run("nix-store", "--verify-path", lost)
}
