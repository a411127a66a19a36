package rollout_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
)

// smallWorld has one rollout: a holds an order, b and c wait, each its own wave.
func smallWorld(t *testing.T) *story {
	t.Helper()
	s := newStory(t)
	b := newBuilder("1", 1, s.now)
	b.channel("stable", func(*fleet.Policy) {})
	for i, h := range []string{"a", "b", "c"} {
		b.host(h, "stable", i, fleet.Closure(h+"-1"))
	}
	rollout.Publish(s.w, b.build())
	s.machine("a").Parked = true
	s.plan(t)
	return s
}

// TestConflicts: an action that does not fit is refused, names why, and changes
// nothing.
func TestConflicts(t *testing.T) {
	const id, hash = "stable@1", "fleet-1.1-1767614400"
	for name, c := range map[string]struct {
		body rollout.Body
		why  string
	}{
		"another fleet document":        {rollout.Opened{FleetHash: "x"}, "not the newest"},
		"another plan":                  {rollout.Opened{FleetHash: hash, Rollouts: []rollout.NewRollout{{ID: id, Channel: "stable", PlanHash: "x"}}}, "no manifest of stable@1"},
		"opened before":                 {rollout.Opened{FleetHash: hash, Rollouts: []rollout.NewRollout{{ID: id, Channel: "stable", PlanHash: "plan-stable@1"}}}, "opened before"},
		"refresh of an unknown rollout": {rollout.Refreshed{Rollout: "x"}, "no rollout x"},
		"refresh by another document":   {rollout.Refreshed{Rollout: id, FleetHash: "x"}, "not the newest"},
		"refresh by no newer bytes":     {rollout.Refreshed{Rollout: id, FleetHash: hash}, "no newer bytes"},
		"order in an unknown rollout":   {rollout.Delivered{Rollout: "x", Host: "b"}, "no rollout x"},
		"order to a stranger":           {rollout.Delivered{Rollout: id, Host: "x"}, "host x is not in rollout"},
		"second order":                  {rollout.Delivered{Rollout: id, Host: "a"}, "has order stable@1/a/1 already"},
		"release of another order":      {rollout.Released{Rollout: id, Host: "a", OrderID: "x"}, "does not hold order x"},
		"release to a stranger":         {rollout.Released{Rollout: id, Host: "x"}, "host x is not"},
		"reject by a stranger":          {rollout.Rejected{Rollout: id, Host: "x"}, "host x is not"},
		"signal by nobody":              {rollout.Signalled{Rollout: id, Host: "a", OrderID: "x"}, "is not asked"},
		"signal to a stranger":          {rollout.Signalled{Rollout: id, Host: "x"}, "host x is not"},
		"deferral of a stranger":        {rollout.Deferred{Rollout: id, Host: "x"}, "host x is not"},
		"wave out of turn":              {rollout.Advanced{Rollout: id, Wave: 2}, "is Active in wave 0"},
		"wave of nothing":               {rollout.Advanced{Rollout: "x"}, "no rollout x"},
		"skip of a stranger":            {rollout.Skipped{Rollout: id, Host: "x"}, "host x is not"},
		"join of who is not skipped":    {rollout.Joined{Rollout: id, Host: "a"}, "is not skipped"},
		"loss of a stranger":            {rollout.Lost{Rollout: id, Host: "x"}, "host x is not"},
		"loss of who is not changed":    {rollout.Lost{Rollout: id, Host: "a"}, "is not being changed"},
		"found without a loss":          {rollout.Found{Rollout: id, Host: "a"}, "is not lost"},
		"halt of nothing":               {rollout.Halted{Rollout: "x"}, "no rollout x"},
		"end of nothing":                {rollout.Moved{Rollout: "x", To: rollout.Terminal}, "no rollout x"},
		"end before the end":            {rollout.Moved{Rollout: id, To: rollout.Terminal}, "is Active"},
		"accepting a stranger":          {rollout.Accepted{Rollout: id, Hosts: []string{"x"}}, "host x is not"},
		"forcing nothing":               {rollout.Forced{Rollout: "x"}, "no rollout x"},
		"forcing another wave":          {rollout.Forced{Rollout: id, Wave: 1}, "is in wave 0"},
		"rollback of nothing":           {rollout.RolledBack{Rollout: "x"}, "no rollout x"},
		"pruning nothing":               {rollout.Removed{Rollout: "x"}, "no rollout x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := smallWorld(t)
			before := canonical(s.w)
			err := rollout.Apply(s.w, rollout.Action{At: s.now, Ready: time.Hour, Body: c.body})
			var conflict *rollout.Conflict
			if !errors.As(err, &conflict) || conflict.Kind != c.body.Kind() || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v, want a conflict that says %q", err, c.why)
			}
			if after := canonical(s.w); after != before || s.w.Ready != 0 {
				t.Errorf("the refused action changed the world:\n%s", after)
			}
		})
	}
}

// TestConflictsLater: refusals that need a history.
func TestConflictsLater(t *testing.T) {
	s := smallWorld(t)
	for _, move := range []string{"ack", "start"} {
		if err := s.event("stable@1", "a", move); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(why string, b rollout.Body) {
		t.Helper()
		if got := s.apply(b); !strings.Contains(got, why) {
			t.Errorf("%s: got %q, want %q", b.Kind(), got, why)
		}
	}
	refused("host a is Activating", rollout.Delivered{Rollout: "stable@1", Host: "a"})
	refused("", rollout.Lost{Rollout: "stable@1", Host: "a"})
	refused("lost already", rollout.Lost{Rollout: "stable@1", Host: "a"})
	refused("", rollout.Halted{Rollout: "stable@1", Hosts: []string{"a"}, Limit: 1})
	refused("is Failed", rollout.Halted{Rollout: "stable@1"})
	refused("is Failed", rollout.Delivered{Rollout: "stable@1", Host: "b"})
	refused("stays halted by a", rollout.Accepted{Rollout: "stable@1"})
	refused("forgotten", rollout.Remembered{Host: "a"})

	next := newBuilder("2", 1, s.now.Add(time.Hour))
	next.channel("stable", func(*fleet.Policy) {})
	next.host("a", "stable", 0, "a-2")
	rollout.Publish(s.w, next.build())
	refused("the unfinished rollout of channel stable is", rollout.Opened{
		FleetHash: s.w.Release.FleetHash,
		Rollouts:  []rollout.NewRollout{{ID: "stable@2", Channel: "stable", PlanHash: "plan-stable@2", Supersedes: "x"}},
	})
}

// TestUnusableManifest: a manifest that no rollout can be made of holds back its
// channel and is asked for in vain, never opened.
func TestUnusableManifest(t *testing.T) {
	for name, spoil := range map[string]func(*fleet.Manifest){
		"no hosts":  func(m *fleet.Manifest) { m.HostSet = nil },
		"no policy": func(m *fleet.Manifest) { m.Policy = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			b := newBuilder("1", 1, s.now)
			b.channel("stable", func(*fleet.Policy) {})
			b.host("a", "stable", 0, "a-1")
			rel := b.build()
			spoil(rel.Manifests["stable"].Doc)
			rollout.Publish(s.w, rel)
			if got := s.plan(t); got != "" {
				t.Errorf("planned %q", got)
			}
			got := s.apply(rollout.Opened{FleetHash: rel.FleetHash, Rollouts: []rollout.NewRollout{{ID: "stable@1", Channel: "stable", PlanHash: "plan-stable@1"}}})
			if got == "" {
				t.Error("it was opened")
			}
		})
	}
}

// TestNothingPublished: a world without a release, as a store without documents
// gives it back, plans nothing new and loses nobody.
func TestNothingPublished(t *testing.T) {
	if got := rollout.Plan(rollout.NewWorld(), epoch); len(got) != 0 {
		t.Errorf("planned %v", got)
	}
	s := smallWorld(t)
	s.w.Release = nil
	if got := s.plan(t); got != "" {
		t.Errorf("planned %q", got)
	}
}

// TestRecordOfAStranger: an event of a host that the rollout does not have.
func TestRecordOfAStranger(t *testing.T) {
	s := smallWorld(t)
	for _, h := range []lifecycle.Host{{Rollout: "stable@1", Hostname: "x"}, {Rollout: "x", Hostname: "a"}} {
		if rollout.Record(s.w, h, nil) == nil {
			t.Errorf("%s of %s was recorded", h.Hostname, h.Rollout)
		}
	}
}

// TestRefusedEvent: a refused event has had its number and does nothing else.
func TestRefusedEvent(t *testing.T) {
	s := smallWorld(t)
	if err := s.event("stable@1", "a", "live"); err == nil {
		t.Fatal("a host went live without an acknowledgement")
	}
	h := s.w.Rollouts["stable@1"].Host("a")
	if h.Seq != 1 || h.Order == nil || h.State != lifecycle.Pending {
		t.Errorf("after the refused event: seq %d, order %v, state %s", h.Seq, h.Order, h.State)
	}
}

// TestPrunable: what ended long ago, is not its channel's newest, and leaves
// nobody with anything to do.
func TestPrunable(t *testing.T) {
	s := smallWorld(t)
	for i, ref := range []string{"2", "3"} {
		b := newBuilder(ref, 1, s.now.Add(time.Duration(i+1)*time.Minute))
		b.channel("stable", func(*fleet.Policy) {})
		b.host("b", "stable", 0, fleet.Closure("b-"+ref))
		rollout.Publish(s.w, b.build())
		s.plan(t)
	}
	later := s.now.Add(time.Hour)
	if got := rollout.Prunable(s.w, s.now); len(got) != 0 {
		t.Errorf("prunable now: %v", got)
	}
	if got := rollout.Prunable(s.w, later); !slices.Equal(got, []string{"stable@2"}) { // a has an order of stable@1
		t.Errorf("prunable: %v", got)
	}
	s.apply(rollout.Released{Rollout: "stable@1", Host: "a", OrderID: "stable@1/a/1"})
	if got := rollout.Prunable(s.w, later); !slices.Equal(got, []string{"stable@1", "stable@2"}) {
		t.Errorf("prunable: %v", got)
	}
}

// TestRollbackScope: who has begun and has not ended, or holds an order.
func TestRollbackScope(t *testing.T) {
	s := smallWorld(t)
	back, stay := rollout.RollbackScope(s.w.Rollouts["stable@1"])
	if !slices.Equal(back, []string{"a"}) || !slices.Equal(stay, []string{"b", "c"}) {
		t.Errorf("back %v, stay %v", back, stay)
	}
}

// TestActionJSON: every action survives its JSON form.
func TestActionJSON(t *testing.T) {
	for _, b := range []rollout.Body{
		rollout.Opened{FleetHash: "f", Rollouts: []rollout.NewRollout{{ID: "c@1", Channel: "c", PlanHash: "p", Supersedes: "c@0"}}},
		rollout.Refreshed{Rollout: "c@1", SignedAt: epoch, FleetHash: "f"},
		rollout.Delivered{Rollout: "c@1", Host: "h", OrderID: "o", Target: "t", Wave: 1, Slotless: true},
		rollout.Released{Rollout: "c@1", Host: "h", OrderID: "o"},
		rollout.Signalled{Rollout: "c@1", Host: "h", OrderID: "o", Reason: "r"},
		rollout.Advanced{Rollout: "c@1", Wave: 1},
		rollout.Skipped{Rollout: "c@1", Host: "h", Reason: rollout.SkipOperator, Who: "ada", Why: "why"},
		rollout.Joined{Rollout: "c@1", Host: "h"},
		rollout.Lost{Rollout: "c@1", Host: "h"},
		rollout.Found{Rollout: "c@1", Host: "h"},
		rollout.Halted{Rollout: "c@1", Hosts: []string{"h"}, Limit: 1},
		rollout.Moved{Rollout: "c@1", To: rollout.Converging},
		rollout.Moved{Rollout: "c@1", To: rollout.Terminal},
		rollout.Moved{Rollout: "c@1", To: rollout.Reverted},
		rollout.Deferred{Rollout: "c@1", Host: "h", Deferral: rollout.Deferral{Gate: rollout.GateWave, Detail: "wave 1"}},
		rollout.Rejected{Rollout: "c@1", Host: "h", OrderID: "o", Reason: "held", Detail: "d", RetryAfter: time.Minute},
		rollout.Removed{Rollout: "c@1"},
		rollout.Recovering{Why: "why"},
		rollout.Recovered{Who: "ada", Why: "why"},
		rollout.Paused{Channel: "c", Who: "ada", Why: "why"},
		rollout.Resumed{Channel: "c", Who: "ada", Why: "why"},
		rollout.Accepted{Rollout: "c@1", Hosts: []string{"h"}, Who: "ada", Why: "why"},
		rollout.Forced{Rollout: "c@1", Wave: 1, Who: "ada", Why: "why"},
		rollout.RolledBack{Rollout: "c@1", Who: "ada", Why: "why"},
		rollout.QuarantineCleared{Channel: "c", Closure: "x", Who: "ada", Why: "why"},
		rollout.Forgotten{Host: "h", Who: "ada", Why: "why"},
		rollout.Remembered{Host: "h"},
	} {
		in := rollout.Action{At: epoch, Ready: time.Minute, Body: b}
		doc, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out rollout.Action
		if err := json.Unmarshal(doc, &out); err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Errorf("%s came back as %+v", doc, out)
		}
	}
	for doc, why := range map[string]string{
		`{"kind":"invented","body":{}}`:     `unknown kind "invented"`,
		`{"kind":"lost","body":{"host":1}}`: "action lost: ",
		`{"kind":1}`:                        "cannot unmarshal",
	} {
		var a rollout.Action
		if err := json.Unmarshal([]byte(doc), &a); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want %q", doc, err, why)
		}
	}
}

// TestRowJSON: a row survives its JSON form, its mirror included.
func TestRowJSON(t *testing.T) {
	s := smallWorld(t)
	s.apply(rollout.RolledBack{Rollout: "stable@1", Who: "ada", Why: "why"})
	s.apply(rollout.Rejected{Rollout: "stable@1", Host: "b", Reason: "held", RetryAfter: time.Minute})
	for i := range s.w.Rollouts["stable@1"].Hosts {
		in := s.w.Rollouts["stable@1"].Hosts[i]
		doc, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out rollout.HostRow
		if err := json.Unmarshal(doc, &out); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Errorf("%s came back as %+v", doc, out)
		}
	}
}

// TestReload: a world that a store gives back, with nothing worked out yet,
// plans and counts as the one that was stored.
func TestReload(t *testing.T) {
	s := smallWorld(t)
	for _, move := range []string{"ack", "start"} {
		if err := s.event("stable@1", "a", move); err != nil {
			t.Fatal(err)
		}
	}
	s.w.Ready = time.Hour
	again := rollout.Reloaded(s.w)
	if got, want := rollout.Plan(again, s.now), rollout.Plan(s.w, s.now); len(got) == 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("reloaded plans %v, not %v", got, want)
	}
}
