package fleet_test

import (
	"regexp"
	"strings"
	"testing"

	"nixfleet/internal/fleet"
)

func TestRolloutID(t *testing.T) {
	for _, c := range []struct {
		channel, ref string
		attempt      int
		id           string
	}{
		{"stable", "0123abcd", 1, "stable@0123abcd"},
		{"stable", "0123abcd", 0, "stable@0123abcd"},
		{"stable", "0123abcd", 2, "stable@0123abcd.2"},
		{"a_b-9", "f", 10, "a_b-9@f.10"},
	} {
		if id := fleet.RolloutID(c.channel, c.ref, c.attempt); id != c.id {
			t.Errorf("%s, want %s", id, c.id)
		}
		channel, ref, attempt, err := fleet.ParseRolloutID(c.id)
		if err != nil || channel != c.channel || ref != c.ref || attempt != max(1, c.attempt) {
			t.Errorf("ParseRolloutID(%s) = %s, %s, %d, %v", c.id, channel, ref, attempt, err)
		}
	}
}

func TestRolloutIDRefuses(t *testing.T) {
	for id, why := range map[string]string{
		"":                               "no @",
		"stable":                         "no @",
		"@ab":                            "channel name is empty",
		"stable@":                        "ref is empty",
		"Stable@ab":                      `channel name "Stable" holds 'S'`,
		"sta/ble@ab":                     "holds '/'",
		"stable@xyz":                     `ref "xyz" holds 'x'`,
		"stable@AB":                      "holds 'A'",
		"stable@ab@cd":                   "holds '@'",
		"stable@ab.":                     "from 2 on",
		"stable@ab.0":                    "from 2 on",
		"stable@ab.1":                    "from 2 on",
		"stable@ab.02":                   "from 2 on",
		"stable@ab.+2":                   "from 2 on",
		"stable@ab.-2":                   "from 2 on",
		"stable@ab.2.3":                  "from 2 on",
		"stable@ab.99999999999999999999": "from 2 on",
		"stable@ab\n":                    "holds '\\n'",
		"stable@../../x":                 "ref is empty",
		"s@" + strings.Repeat("a", 199):  "longer than 200 bytes",
	} {
		_, _, _, err := fleet.ParseRolloutID(id)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", id, err, why)
		}
	}
	if _, _, _, err := fleet.ParseRolloutID("s@" + strings.Repeat("a", 198)); err != nil {
		t.Errorf("200 bytes: %v", err)
	}
}

// FuzzRolloutID: what is taken has the published form, and is what its parts
// make again.
func FuzzRolloutID(f *testing.F) {
	form := regexp.MustCompile(`^[a-z0-9_-]+@[0-9a-f]+(\.[1-9][0-9]*)?$`)
	for _, id := range []string{"stable@0123456789abcdef", "a_b-9@f.10", "stable@ab.1", "stable@ab.02", "@", "a@b.c", "s@a\x00", "é@a", "a@0.9223372036854775808"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		channel, ref, attempt, err := fleet.ParseRolloutID(id)
		if err != nil {
			return
		}
		if !form.MatchString(id) || len(id) > 200 || attempt < 1 {
			t.Errorf("%q is taken, attempt %d", id, attempt)
		}
		if again := fleet.RolloutID(channel, ref, attempt); again != id {
			t.Errorf("%q became %q", id, again)
		}
	})
}
