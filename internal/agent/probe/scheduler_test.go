package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"nixfleet/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector keeps what a scheduler reports.
type collector struct {
	mu      sync.Mutex
	results []Result
}

func (c *collector) report(r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results = append(c.results, r)
}

func (c *collector) take() []Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.results
	c.results = nil
	return taken
}

// runFor runs a scheduler for a time of the bubble.
func runFor(t *testing.T, s *Scheduler, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s.Run(ctx)
}

func scripted(name string, verdict func(n int) Verdict) Probe {
	var n atomic.Int64
	return Probe{
		Name: name, Kind: KindExec, Mode: lifecycle.Enforce, Interval: 10 * time.Second, Timeout: 5 * time.Second,
		Check: func(context.Context) Verdict { return verdict(int(n.Add(1))) },
	}
}

func always(v Verdict) func(int) Verdict { return func(int) Verdict { return v } }

// TestFirstAtOnceThenEveryInterval, with a jitter of 10 %.
func TestFirstAtOnceThenEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		began := time.Now()
		s := New(Topology{[]Probe{scripted("web", always(pass()))}}, got.report)
		runFor(t, s, time.Hour)
		results := got.take()
		if len(results) < 320 || len(results) > 400 || !results[0].At.Equal(began) {
			t.Fatalf("%d results, the first after %s", len(results), results[0].At.Sub(began))
		}
		spread := map[time.Duration]bool{}
		for i, r := range results[1:] {
			between := r.At.Sub(results[i].At)
			if between < 9*time.Second || between > 11*time.Second {
				t.Errorf("%s between two checks", between)
			}
			spread[between] = true
		}
		if len(spread) < 100 {
			t.Errorf("%d different intervals", len(spread))
		}
		if kept := s.History("web"); len(kept) != 50 || kept[len(kept)-1].At != results[len(results)-1].At {
			t.Errorf("%d results are kept", len(kept))
		}
		if s.History("other") != nil {
			t.Error("a history of nothing")
		}
	})
}

// TestRunAgain: every activation gets its first results at once.
func TestRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		once := scripted("once", always(pass()))
		once.RunOnce = true
		s := New(Topology{[]Probe{once, scripted("web", always(fail("no")))}}, got.report)
		for range 3 {
			began := time.Now()
			runFor(t, s, time.Second)
			if results := got.take(); len(results) != 2 || !results[0].At.Equal(began) || !results[1].At.Equal(began) {
				t.Errorf("%+v", results)
			}
		}
	})
}

func TestDisabledNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := scripted("off", always(pass()))
		p.Mode = lifecycle.Disabled
		runFor(t, New(Topology{[]Probe{p}}, func(r Result) { t.Errorf("%+v", r) }), time.Hour)
	})
}

// TestEmptyTopologyWaits: Run ends with its context and not before.
func TestEmptyTopologyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		runFor(t, New(Topology{}, nil), time.Minute)
		if time.Since(began) != time.Minute {
			t.Errorf("ended after %s", time.Since(began))
		}
	})
}

// TestGrace: failures before the first pass are kept and not reported; after a
// pass, or the end of the grace, they count.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		starting := scripted("starting", func(n int) Verdict {
			if n == 2 {
				return pass()
			}
			return fail("no")
		})
		starting.Grace = time.Minute
		broken := scripted("broken", always(fail("no")))
		broken.Grace = time.Minute
		s := New(Topology{[]Probe{broken, starting}}, got.report)
		runFor(t, s, 25*time.Second)
		if results := got.take(); len(results) != 2 || results[0].Status != lifecycle.Pass || results[1].Status != lifecycle.Fail || results[1].Name != "starting" {
			t.Errorf("%+v", results)
		}
		if kept := s.History("broken"); len(kept) != 3 || !kept[2].Grace {
			t.Errorf("%+v", kept)
		}
		began := time.Now()
		runFor(t, s, 2*time.Minute)
		for _, r := range got.take() {
			if r.Name == "broken" {
				if after := r.At.Sub(began); after < time.Minute || after > 72*time.Second {
					t.Errorf("the first failure counted after %s", after)
				}
				return
			}
		}
		t.Error("no failure ever counted")
	})
}

// TestRunOnce ends with the first result that counts, which is not one of the
// grace.
func TestRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		p := scripted("migration", func(n int) Verdict {
			if n < 3 {
				return fail("running")
			}
			return pass()
		})
		p.RunOnce, p.Grace = true, time.Minute
		failed := scripted("failed", always(fail("no")))
		failed.RunOnce = true
		s := New(Topology{[]Probe{failed, p}}, got.report)
		runFor(t, s, time.Hour)
		if results := got.take(); len(results) != 2 || len(s.History("migration")) != 3 || len(s.History("failed")) != 1 {
			t.Errorf("%+v", results)
		}
	})
}

// TestRetries: a failure counts when the last retry failed too.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		p := scripted("flaky", func(n int) Verdict {
			if n <= 3 || n == 5 {
				return fail(fmt.Sprintf("attempt %d", n))
			}
			return pass()
		})
		p.Retries = 2
		runFor(t, New(Topology{[]Probe{p}}, got.report), 15*time.Second)
		results := got.take()
		if len(results) != 2 || results[0].Reason != "attempt 3" || results[1].Status != lifecycle.Pass {
			t.Errorf("%+v", results)
		}
	})
}

// TestAtMostEightAtATime, however many probes there are and whatever hangs.
func TestAtMostEightAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		var probes []Probe
		for i := range 30 {
			probes = append(probes, Probe{
				Name: fmt.Sprintf("p%02d", i), Mode: lifecycle.Enforce, Interval: time.Hour, Timeout: 10 * time.Second,
				Check: func(ctx context.Context) Verdict {
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					<-ctx.Done() // hangs until its deadline
					return fail("hung")
				},
			})
		}
		var got collector
		runFor(t, New(Topology{probes}, got.report), 41*time.Second)
		if results := got.take(); len(results) != 30 || most.Load() != 8 {
			t.Errorf("%d results, %d at a time", len(results), most.Load())
		}
	})
}

// TestLateTicksAreSkipped: a check that is slower than its interval runs again at
// the next tick, once.
func TestLateTicksAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		slow := Probe{
			Name: "slow", Mode: lifecycle.Enforce, Interval: 10 * time.Second, Timeout: time.Minute,
			Check: func(context.Context) Verdict { time.Sleep(35 * time.Second); return pass() },
		}
		runFor(t, New(Topology{[]Probe{slow}}, got.report), 10*time.Minute)
		results := got.take()
		if len(results) < 12 || len(results) > 17 {
			t.Errorf("%d results", len(results))
		}
		for _, r := range results {
			if r.Duration != 35*time.Second {
				t.Errorf("took %s", r.Duration)
			}
		}
	})
}

// TestStoppingIsNoFailure: what the end of the run interrupts is not reported.
func TestStoppingIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hanging := Probe{
			Name: "hanging", Mode: lifecycle.Enforce, Interval: time.Second, Timeout: time.Hour,
			Check: func(ctx context.Context) Verdict { <-ctx.Done(); return fail(ctx.Err().Error()) },
		}
		s := New(Topology{[]Probe{hanging}}, func(r Result) { t.Errorf("%+v", r) })
		runFor(t, s, time.Minute)
		if kept := s.History("hanging"); len(kept) != 0 {
			t.Errorf("%+v", kept)
		}
	})
}

// TestReportedTextIsBounded whatever a check says.
func TestReportedTextIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got collector
		long := scripted("long", always(Verdict{Status: "maybe", Reason: string(make([]byte, 10000)) + "\xff"}))
		runFor(t, New(Topology{[]Probe{long}}, got.report), time.Second)
		if results := got.take(); len(results) != 1 || results[0].Status != lifecycle.Fail || len(results[0].Reason) > MaxReason {
			t.Errorf("%+v", results)
		}
	})
}

// TestRealProbesInABubble: http and tcp through an injected network, in virtual
// time.
func TestRealProbesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := http.StatusOK
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, "hello")
		})
		var servers sync.WaitGroup
		dial := func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			servers.Go(func() { http.Serve(&oneConn{conn: server}, handler) })
			return client, nil
		}
		topology := Parse([]byte(`{"web":{"kind":"http","url":"http://web.example/","intervalSeconds":60},"port":{"kind":"tcp","port":80,"intervalSeconds":60}}`), Machine{Dial: dial})
		var got collector
		s := New(topology, got.report)
		runFor(t, s, 10*time.Minute)
		results := got.take()
		if len(results) < 18 {
			t.Errorf("%d results", len(results))
		}
		for _, r := range results {
			if r.Status != lifecycle.Pass {
				t.Errorf("%+v", r)
			}
		}
		status = http.StatusInternalServerError
		runFor(t, s, time.Second)
		for _, r := range got.take() {
			if want := map[string]lifecycle.Status{"web": lifecycle.Fail, "port": lifecycle.Pass}[r.Name]; r.Status != want {
				t.Errorf("%+v", r)
			}
		}
		servers.Wait()
	})
}

// oneConn is a listener that accepts one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, io.EOF
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
