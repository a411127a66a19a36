package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/lifecycle"
)

// TestSoaksSince: what went live an hour ago did so whatever became of the clock.
func TestSoaksSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		soaking := func(state lifecycle.State, clockWas time.Duration) *entry {
			return &entry{since: begun, Rollout: journal.Rollout{Host: lifecycle.Host{
				State: state, Target: "v2", Prior: "v1", Mutated: true, CompletedActive: 60, CompletedAt: begun.Add(time.Minute + clockWas),
			}}}
		}
		time.Sleep(time.Minute + time.Hour)
		now, live := time.Now(), begun.Add(time.Minute)
		for _, test := range []struct {
			name string
			e    *entry
			want time.Time
		}{
			{"soaking", soaking(lifecycle.Soaking, 0), live},
			{"the clock was set back by 2 h since", soaking(lifecycle.Soaking, 2*time.Hour), live},
			{"the clock was set forward by 2 h since", soaking(lifecycle.Soaking, -2*time.Hour), live.Add(-2 * time.Hour)},
			{"soaked", soaking(lifecycle.Converged, 0), time.Time{}},
			{"switching", soaking(lifecycle.Activating, 0), time.Time{}},
		} {
			if got := test.e.soaksSince(now); !got.Equal(test.want) {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
		}
	})
}
