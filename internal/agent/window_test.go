package agent

import (
	"testing"
	"time"

	"nixfleet/internal/fleet"
)

func TestUntilWindow(t *testing.T) {
	night := fleet.RebootWindow{Start: "23:00", Minutes: 120}
	weekend := fleet.RebootWindow{Days: []string{"sat", "sun"}, Start: "04:00", Minutes: 60}
	berlin := fleet.RebootWindow{Start: "03:00", Minutes: 60, TZ: "Europe/Berlin"}
	for _, test := range []struct {
		name   string
		window fleet.RebootWindow
		now    string
		want   time.Duration
	}{
		{"before it", night, "2026-06-01T22:30:00Z", 30 * time.Minute},
		{"in it", night, "2026-06-01T23:30:00Z", 0},
		{"in it, after midnight", night, "2026-06-02T00:59:59Z", 0},
		{"at its end", night, "2026-06-02T01:00:00Z", 22 * time.Hour},
		{"on another day", weekend, "2026-06-05T04:30:00Z", 23*time.Hour + 30*time.Minute}, // a Friday
		{"on its day", weekend, "2026-06-06T04:30:00Z", 0},
		{"a week on", weekend, "2026-06-07T05:00:00Z", 6*24*time.Hour - time.Hour},
		{"in another zone", berlin, "2026-06-01T01:30:00Z", 0},
		{"in another zone, in winter", berlin, "2026-12-01T01:30:00Z", 30 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			if got := untilWindow(test.window, now); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
