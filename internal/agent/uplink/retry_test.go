package uplink

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                     0,
		"0":                    0,
		"-5":                   0,
		"soon":                 0,
		"30":                   30 * time.Second,
		"31536000":             MaxRetryAfter, // nobody is silent for a year
		"9223372036854775807":  MaxRetryAfter,
		"99999999999999999999": 0,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):    0,
		time.Now().AddDate(100, 0, 0).UTC().Format(http.TimeFormat): MaxRetryAfter,
	} {
		if got := retryAfter(header); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

// FuzzRetryAfter: whatever a server says, the agent asks again within an hour.
func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{"30", "0", "-1", "9223372037", "18446744074", "Mon, 23 Nov 2026 10:00:00 GMT", "Mon, 23 Nov 9999 10:00:00 GMT", ""} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got := retryAfter(header)
		if got < 0 || got > MaxRetryAfter {
			t.Fatalf("%q: %s", header, got)
		}
		if n, err := strconv.Atoi(header); err == nil && n > 0 && n <= int(MaxRetryAfter/time.Second) && got != time.Duration(n)*time.Second {
			t.Fatalf("%q: %s", header, got)
		}
	})
}
