package nixos

import (
	"testing"

	"nixfleet/internal/agent/host"
)

// A guard must outlive what it guards against: an isolate, the lack of memory, its
// own death. And it must be gone before the state directory is unmounted.
func TestPropertiesOfTheGuard(t *testing.T) {
	got := map[string]any{}
	for _, p := range guardProperties(host.GuardUnit{Program: "/agent", Args: []string{"guard"}, StateDir: "/var/lib/nixfleet-agent"}) {
		got[p.Name] = p.Value.Value()
	}
	for name, want := range map[string]any{
		"Type":                   "simple",
		"CollectMode":            "inactive-or-failed",
		"OOMScoreAdjust":         int32(-1000),
		"Restart":                "on-failure",
		"StartLimitIntervalUSec": uint64(0),
		"IgnoreOnIsolate":        true,
		"DefaultDependencies":    false,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for name, want := range map[string]string{
		"Conflicts":         "shutdown.target",
		"Before":            "shutdown.target",
		"RequiresMountsFor": "/var/lib/nixfleet-agent",
	} {
		if list, _ := got[name].([]string); len(list) != 1 || list[0] != want {
			t.Errorf("%s is %v, want %s", name, got[name], want)
		}
	}
}
