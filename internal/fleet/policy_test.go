package fleet_test

import (
	"reflect"
	"testing"

	stdjson "encoding/json"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
)

// Whatever is absent, or null as Nix writes an option that nobody set, is the
// default, also inside a rollout policy and with the standard library's reader.
func TestPolicyDefaults(t *testing.T) {
	for _, doc := range []string{
		`{}`,
		`{"onHealthFailure":null,"healthFailureSecs":null,"haltAfter":null,"deferredAdvances":null,"reboot":null}`,
		`{"haltAfter":{}}`,
		`{"unknown":[1,{"a":"b"}]}`,
	} {
		var p fleet.Policy
		if err := json.Unmarshal([]byte(doc), &p); err != nil {
			t.Errorf("%s: %v", doc, err)
		}
		if !reflect.DeepEqual(p, fleet.DefaultPolicy()) {
			t.Errorf("%s is read as %+v", doc, p)
		}
		var std fleet.Policy
		if err := stdjson.Unmarshal([]byte(doc), &std); err != nil || !reflect.DeepEqual(p, std) {
			t.Errorf("%s: encoding/json reads %+v, %v", doc, std, err)
		}
		var rollout fleet.RolloutPolicy
		if err := json.Unmarshal([]byte(doc), &rollout); err != nil || !reflect.DeepEqual(p, rollout.Policy) {
			t.Errorf("%s: a rollout policy reads %+v, %v", doc, rollout.Policy, err)
		}
	}
}

// A percentage alone is a percentage: the default number does not stand beside it.
func TestHaltAfterReplacesTheDefault(t *testing.T) {
	var p fleet.Policy
	if err := json.Unmarshal([]byte(`{"haltAfter":{"pct":10}}`), &p); err != nil {
		t.Fatal(err)
	}
	if want := (fleet.HaltAfter{Pct: 10}); p.HaltAfter != want {
		t.Errorf("%+v", p.HaltAfter)
	}
}

func TestPolicyIsWrittenAsItIsRead(t *testing.T) {
	p := fleet.DefaultPolicy()
	p.SoakSecsByWave = []int{300, 0}
	p.HaltAfter = fleet.HaltAfter{Pct: 5}
	p.HealthGate.SystemdFailedUnits = &fleet.FailedUnits{Max: 2}
	p.RebootWindow = &fleet.RebootWindow{Days: []string{"sun"}, Start: "02:30", Minutes: 45, TZ: "Europe/Berlin"}
	rollout := fleet.RolloutPolicy{Strategy: "canary", Waves: []fleet.PolicyWave{{Selector: fleet.Selector{All: true}, SoakSecs: new(9)}}, Policy: p}
	for _, marshal := range []func(any) ([]byte, error){stdjson.Marshal, func(v any) ([]byte, error) { return json.Marshal(v) }} {
		doc, err := marshal(rollout)
		if err != nil {
			t.Fatal(err)
		}
		var again fleet.RolloutPolicy
		if err := json.Unmarshal(doc, &again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Policy, p) || again.Strategy != "canary" || *again.Waves[0].SoakSecs != 9 {
			t.Errorf("%s is read as %+v", doc, again)
		}
	}
}

func TestPolicyNumbers(t *testing.T) {
	p := fleet.Policy{SoakSecsByWave: []int{60, 0, 10}}
	for wave, want := range map[int]int{-1: 0, 0: 60, 1: 0, 2: 10, 3: 0, 99: 0} {
		if got := p.SoakSecs(wave); got != want {
			t.Errorf("wave %d soaks %d s, want %d", wave, got, want)
		}
	}
	if p.MaxFailedUnits() != 0 {
		t.Error("without a gate no unit may fail")
	}
	p.HealthGate.SystemdFailedUnits = &fleet.FailedUnits{Max: 3}
	if p.MaxFailedUnits() != 3 {
		t.Error("the gate's number is not used")
	}
}

func TestHaltAfterAndBudgets(t *testing.T) {
	for _, c := range []struct {
		halt fleet.HaltAfter
		of   int
		want int
	}{
		{fleet.HaltAfter{Hosts: 2}, 100, 2},
		{fleet.HaltAfter{Hosts: 2, Pct: 50}, 100, 2},
		{fleet.HaltAfter{Pct: 5}, 100, 5},
		{fleet.HaltAfter{Pct: 5}, 39, 1},
		{fleet.HaltAfter{Pct: 5}, 3, 1},
	} {
		if got := c.halt.Of(c.of); got != c.want {
			t.Errorf("%+v of %d is %d", c.halt, c.of, got)
		}
	}
	hosts := make([]string, 10)
	for _, c := range []struct {
		most, pct *int
		want      int
	}{
		{nil, nil, 10},
		{new(3), nil, 3},
		{nil, new(35), 3},
		{nil, new(1), 1},
		{new(2), new(50), 2},
		{new(8), new(50), 5},
		{new(50), nil, 10},
	} {
		if got := (fleet.Budget{Hosts: hosts, MaxInFlight: c.most, MaxInFlightPct: c.pct}).Limit(); got != c.want {
			t.Errorf("%v, %v %% of 10 hosts is %d, want %d", c.most, c.pct, got, c.want)
		}
	}
}

func TestPolicyRefuses(t *testing.T) {
	for _, doc := range []string{`[]`, `"halt"`, `{"aliveSecs":"120"}`, `{"aliveSecs":1.5}`, `{"confirm":1}`} {
		var p fleet.Policy
		if err := json.Unmarshal([]byte(doc), &p); err == nil {
			t.Errorf("%s is read as a policy", doc)
		}
		var r fleet.RolloutPolicy
		if err := json.Unmarshal([]byte(doc), &r); err == nil {
			t.Errorf("%s is read as a rollout policy", doc)
		}
	}
}
