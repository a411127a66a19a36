package core_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// BenchmarkIngest stores events in batches of 64 of 200 hosts at once: each
// signature verified, Step run, every batch durable before it is answered.
func BenchmarkIngest(b *testing.B) {
	const hosts, size = 200, 64
	f := fleettest.New(b, hosts)
	w := start(b, f)
	id := w.publish("aa", newSystem)
	for _, h := range f.Hosts {
		w.send(h, []json.RawMessage{h.Event(id, ack())}, wire.StatusStored)
	}
	batches := max(1, (b.N+hosts*size-1)/(hosts*size))
	events := make([][][]json.RawMessage, hosts)
	for i, h := range f.Hosts {
		for range batches {
			var batch []json.RawMessage
			for n := range size {
				batch = append(batch, h.Event(id, lifecycle.Notice{Code: lifecycle.NoticeGuardActed, Detail: fmt.Sprint("number ", n)}))
			}
			events[i] = append(events[i], batch)
		}
	}
	b.ResetTimer()
	var wait sync.WaitGroup
	for i, h := range f.Hosts {
		wait.Go(func() {
			for _, batch := range events[i] {
				results, err := w.Ingest(b.Context(), h.Name, batch)
				if err != nil {
					b.Error(err)
					return
				}
				for _, r := range results {
					if r.Status != wire.StatusStored {
						b.Errorf("%+v", r)
						return
					}
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	b.ReportMetric(float64(hosts*size*batches)/b.Elapsed().Seconds(), "events/s")
}
