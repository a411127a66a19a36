package agent

import (
	"fmt"
	"slices"
	"testing"

	"nixfleet/internal/agent/probe"
	"nixfleet/internal/lifecycle"
)

// TestWaitsOfASoak: its time as long as it lasts, and whatever else keeps it from
// ending, with why.
func TestWaitsOfASoak(t *testing.T) {
	soaking := lifecycle.Host{State: lifecycle.Soaking, CompletedActive: 100, SoakSecs: 60, Confirmed: true, Persisted: true}
	probes := []ProbeStatus{
		{Name: "late", Mode: lifecycle.Enforce},
		{Name: "sick", Mode: lifecycle.Enforce, Status: lifecycle.Fail, Last: &probe.Result{Verdict: probe.Verdict{Status: lifecycle.Fail, Reason: "exit status 1"}}},
		{Name: "seen", Mode: lifecycle.Observe, Status: lifecycle.Fail},
		{Name: "well", Mode: lifecycle.Enforce, Status: lifecycle.Pass},
	}
	for _, c := range []struct {
		active int64
		probes []ProbeStatus
		want   []string
	}{
		{159, nil, []string{"soak "}},
		{160, nil, nil},
		{159, probes, []string{"soak ", "probe:late it has no result yet", "probe:sick exit status 1"}},
		{160, probes, []string{"probe:late it has no result yet", "probe:sick exit status 1"}},
	} {
		var got []string
		for _, w := range waitsOf(soaking, c.active, c.probes) {
			got = append(got, fmt.Sprintf("%s %s", w.On, w.Why))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("after %d s: %q, want %q", c.active, got, c.want)
		}
	}
}
