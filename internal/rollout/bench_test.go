package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
)

// BenchmarkPlan plans a fleet in the middle of its rollouts: 500 hosts a
// channel, 30 % of them Pending, 5 budgets over the whole fleet that every
// manifest repeats, 10 edges a channel. The budget for 20 channels is 15 ms and
// 8 MiB; ten times the hosts take ten times as long.
func BenchmarkPlan(b *testing.B) {
	for _, channels := range []int{20, 200} {
		b.Run(fmt.Sprintf("hosts=%d", channels*500), func(b *testing.B) {
			w := fleetInTheMiddle(b, channels, 500)
			rollout.Plan(w, epoch)
			b.ReportAllocs()
			for b.Loop() {
				rollout.Plan(w, epoch)
			}
		})
	}
}

// BenchmarkPlanAfterOpening is BenchmarkPlan when a rollout has just opened, and
// what follows from the manifests is worked out anew.
func BenchmarkPlanAfterOpening(b *testing.B) {
	w := fleetInTheMiddle(b, 20, 500)
	b.ReportAllocs()
	for b.Loop() {
		rollout.Plan(rollout.Reloaded(w), epoch)
	}
}

// fleetInTheMiddle has half of the Pending hosts ready to be handed an order,
// the others without a poll, and full budgets for most of them.
func fleetInTheMiddle(tb testing.TB, channels, hosts int) *rollout.World {
	tb.Helper()
	bld := newBuilder("1", 1, epoch)
	lists := make([][]string, 5)
	for c := range channels {
		channel := fmt.Sprintf("channel%03d", c)
		bld.channel(channel, func(*fleet.Policy) {})
		for i := range hosts {
			name := fmt.Sprintf("host-%03d-%03d", c, i)
			bld.host(name, channel, i*10/hosts, fleet.Closure(name+"-1"))
			lists[i%5] = append(lists[i%5], name)
		}
		for e := range 10 {
			bld.edges = append(bld.edges, fleet.Edge{Gates: fmt.Sprintf("host-%03d-%03d", c, e), Gated: fmt.Sprintf("host-%03d-%03d", c, e+10)})
		}
	}
	for _, l := range lists {
		bld.budgets = append(bld.budgets, fleet.Budget{Hosts: l, MaxInFlightPct: ptr(10)})
	}
	s := newStory(tb)
	rel := bld.build()
	for c, m := range rel.Manifests { // 200 edges are those of all channels
		own := m.Doc.Edges[:0:0]
		for _, e := range m.Doc.Edges {
			if _, ok := m.Doc.Target(e.Gated); ok {
				own = append(own, e)
			}
		}
		m.Doc.Edges = own
		rel.Manifests[c] = m
	}
	rollout.Publish(s.w, rel)
	for _, a := range rollout.Plan(s.w, s.now) {
		if err := rollout.Apply(s.w, a); err != nil {
			tb.Fatal(err)
		}
	}
	s.w.Ready = time.Hour
	for _, r := range s.w.Rollouts {
		for i := range r.Hosts {
			h := &r.Hosts[i]
			m := s.w.Machines[h.Hostname]
			m.Seen = s.w.Ready
			if i < len(r.Hosts)*7/10 {
				h.State = lifecycle.Converged
				h.Probes = []lifecycle.Probe{{Name: "http", Mode: lifecycle.Enforce, Status: lifecycle.Pass}}
			} else {
				m.Parked = i%2 == 0
			}
		}
		r.Wave = 9
	}
	return s.w
}
