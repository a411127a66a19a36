package lifecycle_test

import (
	"fmt"
	"testing"

	"nixfleet/internal/lifecycle"
)

// fiveProbes is a soaking host with five probes.
func fiveProbes(t testing.TB) lifecycle.Host {
	var declared lifecycle.ProbeTopologyDeclared
	for i := range 5 {
		declared.Probes = append(declared.Probes, lifecycle.ProbeDeclared{ProbeName: fmt.Sprintf("probe-%02d", i), Kind: "http", Mode: lifecycle.Enforce})
	}
	return walk(t, soaking(t), declared)
}

func probeEvent(h lifecycle.Host, s lifecycle.Status) lifecycle.Event {
	return lifecycle.Event{Seq: h.Seq + 1, Active: h.Active, At: noon, Body: lifecycle.ProbeResult{ProbeName: "probe-03", Status: s}}
}

func BenchmarkStep(b *testing.B) {
	h := fiveProbes(b)
	for _, c := range []struct {
		name  string
		event lifecycle.Event
	}{
		{"probe passes", probeEvent(h, lifecycle.Pass)},
		{"probe fails", probeEvent(h, lifecycle.Fail)},
		{"observed", lifecycle.Event{Seq: h.Seq + 1, At: noon, Body: *seen(h)}},
		{"repeat", lifecycle.Event{Seq: h.Seq, At: noon, Body: *seen(h)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := lifecycle.Step(h, c.event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDue(b *testing.B) {
	h := fiveProbes(b)
	now := lifecycle.Now{Active: h.Active + 1, BootID: h.BootID, Observation: seen(h)}
	b.ReportAllocs()
	for b.Loop() {
		if body, _ := lifecycle.Due(h, now); body != nil {
			b.Fatal(body.Kind())
		}
	}
}

func BenchmarkWant(b *testing.B) {
	h := fiveProbes(b)
	b.ReportAllocs()
	for b.Loop() {
		if !lifecycle.Want(h).Probes {
			b.Fatal("no probes")
		}
	}
}

// The control plane steps ten thousand events a second, most of them of probes.
func TestProbeEventAllocatesLittle(t *testing.T) {
	const most = 2
	h := fiveProbes(t)
	for _, s := range []lifecycle.Status{lifecycle.Pass, lifecycle.Fail} {
		event := probeEvent(h, s)
		got := testing.AllocsPerRun(100, func() { _, _ = lifecycle.Step(h, event) })
		if got > most {
			t.Errorf("%s: %v allocations, at most %d", s, got, most)
		}
	}
}
