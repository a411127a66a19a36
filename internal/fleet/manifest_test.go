package fleet_test

import (
	"strings"
	"testing"

	"nixfleet/internal/fleet"
)

// Each defect of a manifest is refused with its host or field.
func TestInvalidManifests(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*fleet.Manifest)
		want  string
	}{
		"channel":        {func(m *fleet.Manifest) { m.Channel = "A" }, "rollout id"},
		"ref":            {func(m *fleet.Manifest) { m.ChannelRef = "main" }, "rollout id"},
		"attempt":        {func(m *fleet.Manifest) { m.Attempt = -1 }, "attempt: -1"},
		"window":         {func(m *fleet.Manifest) { m.FreshnessWindowMinutes = -1 }, "freshnessWindowMinutes: -1"},
		"fleet hash":     {func(m *fleet.Manifest) { m.FleetResolvedHash = strings.Repeat("AB", 32) }, "fleetResolvedHash"},
		"compliance":     {func(m *fleet.Manifest) { m.ComplianceMode = "x" }, `complianceMode: "x"`},
		"health gate":    {func(m *fleet.Manifest) { m.HealthGate.SystemdFailedUnits = &fleet.FailedUnits{Max: -1} }, "healthGate.systemdFailedUnits.max"},
		"no policy":      {func(m *fleet.Manifest) { m.Policy = nil }, "policy: is missing"},
		"policy":         {func(m *fleet.Manifest) { m.Policy.Persist = "" }, `policy.persist: ""`},
		"budget":         {func(m *fleet.Manifest) { m.DisruptionBudgets[0].MaxInFlight = nil }, "disruptionBudgets[0]"},
		"budget's hosts": {func(m *fleet.Manifest) { m.DisruptionBudgets[0].Hosts = []string{"b", "a"} }, "disruptionBudgets[0].hosts: are not sorted"},
		"not sorted":     {func(m *fleet.Manifest) { m.HostSet[0], m.HostSet[1] = m.HostSet[1], m.HostSet[0] }, `host "db-01" comes after "web-01"`},
		"twice":          {func(m *fleet.Manifest) { m.HostSet[1] = m.HostSet[0] }, `host "db-01" comes after "db-01"`},
		"host name":      {func(m *fleet.Manifest) { m.HostSet[0].Hostname = "" }, `hostSet: host name ""`},
		"closure":        {func(m *fleet.Manifest) { m.HostSet[1].TargetClosure = "x" }, "hostSet.web-01.targetClosure"},
		"wave":           {func(m *fleet.Manifest) { m.HostSet[1].WaveIndex = -1 }, "hostSet.web-01.waveIndex: -1"},
	} {
		m := project(t, homelab(t), release)["stable"]
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		c.spoil(&m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestManifestTarget(t *testing.T) {
	m := project(t, homelab(t), release)["stable"]
	for _, want := range m.HostSet {
		if got, ok := m.Target(want.Hostname); !ok || got != want {
			t.Errorf("%s: %+v", want.Hostname, got)
		}
	}
	for _, name := range []string{"", "a", "web-0", "zz"} {
		if got, ok := m.Target(name); ok {
			t.Errorf("%q has the target %+v", name, got)
		}
	}
}

func TestManifestID(t *testing.T) {
	m := fleet.Manifest{Channel: "stable", ChannelRef: "ab12"}
	if m.ID() != "stable@ab12" {
		t.Error(m.ID())
	}
	m.Attempt = 2
	if m.ID() != "stable@ab12.2" {
		t.Error(m.ID())
	}
}

func TestManifestFillDefaults(t *testing.T) {
	gate := fleet.HealthGate{SystemdFailedUnits: &fleet.FailedUnits{Max: 4}}
	m := fleet.Manifest{HealthGate: gate, Policy: &fleet.Policy{}}
	m.FillDefaults()
	if m.Attempt != 1 || m.Policy.MaxFailedUnits() != 4 {
		t.Errorf("attempt %d, gate %d", m.Attempt, m.Policy.MaxFailedUnits())
	}
	m.Attempt, m.HealthGate = 3, fleet.HealthGate{}
	m.FillDefaults()
	if m.Attempt != 3 || m.Policy.MaxFailedUnits() != 4 {
		t.Error("what is said was replaced")
	}
}
