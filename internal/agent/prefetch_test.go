package agent_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
)

// announce publishes a manifest and names it as the host's newest, without an order.
func (w *world) announce(m *fleet.Manifest, signer trust.Signer) string {
	w.t.Helper()
	w.publish(m, signer)
	w.cp.locked(func() { w.cp.newest = m.ID() })
	return m.ID()
}

// prefetches starts the agent again with --prefetch.
func (w *world) prefetches() {
	w.t.Helper()
	w.stop()
	w.config = func(c *agent.Config) { c.Prefetch = true }
	w.start()
}

// inStore tells whether a closure was fetched.
func (w *world) inStore(c fleet.Closure) bool {
	_, err := os.Stat(filepath.Join(w.machine, "nix/store", string(c), "bin/switch-to-configuration"))
	return err == nil
}

// rooted tells whether a garbage collection would leave a closure alone.
func (w *world) rooted(c fleet.Closure) bool {
	w.t.Helper()
	dir := filepath.Join(w.machine, "nix/var/nix/gcroots/nixfleet")
	entries, err := os.ReadDir(dir)
	w.must(err)
	for _, e := range entries {
		if link, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && filepath.Base(link) == string(c) {
			return true
		}
	}
	return false
}

// TestATargetIsFetchedAheadOfItsOrder, and nothing else is done about it; it is held
// by a GC root, over restarts and other rollouts, until its own begins.
func TestATargetIsFetchedAheadOfItsOrder(t *testing.T) {
	story(t, func(w *world) {
		w.prefetches()
		first := w.release(w.v2)
		w.until(first, lifecycle.Converged)
		id := w.announce(w.manifest(w.v3), w.ci)
		w.eventually("the target is in the store", func() bool { return w.inStore(w.v3) })
		w.stop()
		w.cp.locked(func() { w.cp.newest = "" }) // so that it is not fetched again
		w.start()
		time.Sleep(time.Hour)
		if !w.rooted(w.v3) {
			t.Error("nothing holds what was fetched ahead")
		}
		w.runsAndBoots(w.v2, w.v2)
		if kinds := w.cp.kinds(id); kinds != "" {
			t.Errorf("it was answered: %s", kinds)
		}
		for _, beat := range w.cp.beats {
			for _, on := range beat.WaitingOn {
				if on == "cache" {
					t.Error("somebody was told that it waits")
				}
			}
		}
		w.order(id)
		w.until(id, lifecycle.Converged)
		w.runsAndBoots(w.v3, w.v3)
		w.stop()
		w.journal(func(tx *journal.Tx) {
			self, err := tx.Self()
			w.must(err)
			if self.Ahead != nil {
				t.Errorf("%+v is kept", self.Ahead)
			}
		})
	})
}

// TestWhatIsNotFetchedAhead: what no order could lead to, and anything without the flag.
func TestWhatIsNotFetchedAhead(t *testing.T) {
	for _, c := range []struct {
		name string
		plan func(w *world)
	}{
		{"without the flag", func(w *world) {
			w.stop()
			w.config = nil
			w.start()
			w.announce(w.manifest(w.v2), w.ci)
		}},
		{"signed by a stranger", func(w *world) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			w.must(err)
			stranger, err := trust.NewSigner(key)
			w.must(err)
			w.announce(w.manifest(w.v2), stranger)
		}},
		{"of other hosts", func(w *world) {
			w.announce(w.manifest(w.v2, func(m *fleet.Manifest) { m.HostSet[0].Hostname = "web-02" }), w.ci)
		}},
		{"older than what was accepted", func(w *world) {
			older := w.manifest(w.v2)
			w.until(w.release(w.v3), lifecycle.Converged)
			w.announce(older, w.ci)
		}},
		{"stale", func(w *world) {
			old := time.Now().Add(-48 * time.Hour).UTC().Truncate(time.Second)
			w.announce(w.manifest(w.v2, func(m *fleet.Manifest) { m.Meta.SignedAt = &old }), w.ci)
		}},
		{"a store without room", func(w *world) {
			w.stop()
			w.config = func(c *agent.Config) { c.Prefetch, c.MinFreeNix = true, 1<<62 }
			w.start()
			w.announce(w.manifest(w.v2), w.ci)
		}},
		{"no rollout's id", func(w *world) {
			w.publish(w.manifest(w.v2), w.ci)
			w.cp.locked(func() { w.cp.newest = "../fleet.resolved" })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(w *world) {
				w.prefetches()
				c.plan(w)
				time.Sleep(30 * time.Minute)
				if w.inStore(w.v2) {
					t.Error("it was fetched ahead of its order")
				}
			})
		})
	}
}

// TestAFetchAheadGivesWay to what is announced later, and to a cache that is down for
// a while.
func TestAFetchAheadGivesWay(t *testing.T) {
	story(t, func(w *world) {
		var asked, ended atomic.Int64
		hung := string(w.v2)[:32]
		l := w.net.listen("slow.test:80")
		files := http.FileServer(http.Dir(w.cache.Dir))
		server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, hung) {
				asked.Add(1)
				<-r.Context().Done()
				ended.Add(1)
				panic(http.ErrAbortHandler)
			}
			files.ServeHTTP(rw, r)
		})}
		served := make(chan struct{})
		go func() {
			defer close(served)
			server.Serve(l)
		}()
		defer func() {
			server.Close()
			l.Close()
			<-served
		}()
		w.stop()
		w.config = func(c *agent.Config) { c.Prefetch, c.CacheURLs = true, []string{"http://slow.test"} }
		w.start()
		w.announce(w.manifest(w.v2), w.ci)
		w.eventually("the cache is asked", func() bool { return asked.Load() > 0 })
		w.announce(w.manifest(w.v3), w.ci)
		w.eventually("what was announced later is fetched", func() bool { return w.inStore(w.v3) })
		if ended.Load() != asked.Load() {
			t.Errorf("%d of %d requests for what was announced before have ended", ended.Load(), asked.Load())
		}
		if w.inStore(w.v2) {
			t.Error("both were fetched")
		}
	})
}

// TestAFetchAheadBeforeAPowerCutIsNotBelieved: its contents are checked when the
// order comes in another boot.
func TestAFetchAheadBeforeAPowerCutIsNotBelieved(t *testing.T) {
	story(t, func(w *world) {
		w.prefetches()
		id := w.announce(w.manifest(w.v2), w.ci)
		w.eventually("the target is in the store", func() bool { return w.inStore(w.v2) })
		program := filepath.Join(w.machine, "nix/store", string(w.v2), "bin/switch-to-configuration")
		w.powerCut()
		w.must(os.Chmod(program, 0o755))
		w.must(os.Truncate(program, 0))
		w.order(id)
		w.until(id, lifecycle.Converged)
		if info, err := os.Stat(program); err != nil || info.Size() == 0 {
			t.Errorf("its files are empty: %v", err)
		}
	})
}

// TestAQuarantinedTargetIsNotFetchedAhead.
func TestAQuarantinedTargetIsNotFetchedAhead(t *testing.T) {
	story(t, func(w *world) {
		w.prefetches()
		w.setProgram(w.v2, exits(2))
		w.until(w.release(w.v2), lifecycle.Reverted)
		id := w.announce(w.manifest(w.v2), w.ci)
		time.Sleep(30 * time.Minute)
		w.stop()
		w.journal(func(tx *journal.Tx) {
			self, err := tx.Self()
			w.must(err)
			if self.Ahead != nil {
				t.Errorf("%s: %+v", id, self.Ahead)
			}
		})
		if !strings.Contains(w.logText(), fmt.Sprintf("prefetch %s", id)) {
			t.Error("it does not log why not")
		}
	})
}
