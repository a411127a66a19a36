package agent

import (
	"slices"
	"strings"
	"time"

	"nixfleet/internal/fleet"
)

// untilWindow is how long it is until the window is open, 0 when it is. A window
// of an unknown time zone is read in UTC: the policy was checked when it was
// released, so this machine only lacks the zone's table.
func untilWindow(w fleet.RebootWindow, now time.Time) time.Duration {
	zone, err := time.LoadLocation(w.TZ)
	if err != nil {
		zone = time.UTC
	}
	now = now.In(zone)
	start, err := time.Parse("15:04", w.Start)
	if err != nil {
		start = time.Time{} // midnight; released policies have a valid time
	}
	for day := -1; day <= 7; day++ { // yesterday's window may still be open
		opens := time.Date(now.Year(), now.Month(), now.Day()+day, start.Hour(), start.Minute(), 0, 0, zone)
		name := strings.ToLower(opens.Weekday().String()[:3])
		if len(w.Days) > 0 && !slices.Contains(w.Days, name) {
			continue
		}
		switch {
		case now.Before(opens):
			return opens.Sub(now)
		case now.Before(opens.Add(time.Duration(w.Minutes) * time.Minute)):
			return 0
		}
	}
	return 24 * time.Hour
}
