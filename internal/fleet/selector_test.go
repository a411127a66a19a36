package fleet_test

import (
	"testing"

	"nixfleet/internal/fleet"
)

func TestSelector(t *testing.T) {
	host := fleet.Host{Tags: []string{"web", "eu"}, Channel: "stable"}
	for _, c := range []struct {
		name string
		s    fleet.Selector
		want bool
	}{
		{"nothing", fleet.Selector{}, false},
		{"all", fleet.Selector{All: true}, true},
		{"its tags", fleet.Selector{Tags: []string{"eu", "web"}}, true},
		{"one tag more", fleet.Selector{Tags: []string{"web", "us"}}, false},
		{"any of tags", fleet.Selector{TagsAny: []string{"us", "eu"}}, true},
		{"none of tags", fleet.Selector{TagsAny: []string{"us", "asia"}}, false},
		{"its name", fleet.Selector{Hosts: []string{"x", "web-01"}}, true},
		{"another name", fleet.Selector{Hosts: []string{"web-0"}}, false},
		{"its channel", fleet.Selector{Channel: new("stable")}, true},
		{"another channel", fleet.Selector{Channel: new("edge")}, false},
		{"one clause of two", fleet.Selector{Tags: []string{"us"}, Channel: new("stable")}, true},
	} {
		if got := c.s.Matches("web-01", host); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
