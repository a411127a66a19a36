package nixos

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"nixfleet/internal/agent/host"
)

var (
	testID  = []byte("0123456789abcdef")
	testEnv = []string{"NIXFLEET_RUN=n", "NIXFLEET_ROLLOUT=r1", "NIXFLEET_CLOSURE=" + string(v1), "NIXFLEET_ACTION=test"}
)

const testIDHex = "30313233343536373839616263646566"

// properties are a unit's, as systemd 252 gives them.
func properties(active, sub string, id []byte, job uint32, result string, code, status int32) (general, service map[string]any) {
	general = map[string]any{"LoadState": "loaded", "ActiveState": active, "SubState": sub, "InvocationID": id,
		"Job": []any{job, dbus.ObjectPath("/")}}
	service = map[string]any{"Environment": testEnv, "Result": result, "ExecMainCode": code, "ExecMainStatus": status}
	return general, service
}

// What a unit's properties mean; the rows were seen on a real systemd.
func TestUnitStates(t *testing.T) {
	ours := host.Run{ID: testIDHex, Rollout: "r1", Closure: v1, Action: host.ActionTest}
	run := func(change func(*host.Run)) host.Run {
		r := ours
		change(&r)
		return r
	}
	ended := func(result string, code int) host.Run {
		return run(func(r *host.Run) { r.Phase, r.Result, r.ExitCode = host.RunEnded, result, code })
	}
	for _, c := range []struct {
		name         string
		active, sub  string
		id           []byte
		job          uint32
		result       string
		code, status int32
		want         host.Run
	}{
		{"just started: no id yet", "inactive", "dead", nil, 5, "success", 0, 0, run(func(r *host.Run) { r.Phase, r.ID = host.RunRunning, "" })},
		{"running", "activating", "start", testID, 5, "success", 0, 0, run(func(r *host.Run) { r.Phase = host.RunRunning })},
		{"ended with 0", "active", "exited", testID, 0, "success", 1, 0, ended(host.ResultSuccess, 0)},
		{"ended with 4", "failed", "failed", testID, 0, "exit-code", 1, 4, ended(host.ResultExitCode, 4)},
		{"could not be executed", "failed", "failed", testID, 0, "exit-code", 1, 203, ended(host.ResultExitCode, 203)},
		{"killed", "failed", "failed", testID, 0, "signal", 2, 9, ended(host.ResultSignal, 137)},
		{"A37: timed out, main program said good-bye with 0", "failed", "failed", testID, 0, "timeout", 1, 0, ended(host.ResultTimeout, 0)},
		{"being stopped by its time limit", "deactivating", "stop-sigterm", testID, 0, "timeout", 0, 0, run(func(r *host.Run) { r.Phase = host.RunRunning })},
		{"stopped: loaded because another unit names it", "inactive", "dead", testID, 0, "success", 1, 0, host.Run{}},
	} {
		general, service := properties(c.active, c.sub, c.id, c.job, c.result, c.code, c.status)
		u, err := parseUnit(general, service)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := u.run(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := (unit{load: "not-found", active: "inactive", result: "success"}).run(); got != (host.Run{}) {
		t.Errorf("an absent unit, which reads like a success: %+v", got)
	}
}

func TestUnreadablePropertyIsNoResult(t *testing.T) {
	general, service := properties("active", "exited", testID, 0, "success", 1, 0)
	for name := range general {
		broken := maps.Clone(general)
		delete(broken, name)
		if u, err := parseUnit(broken, service); err == nil {
			t.Errorf("without %s: %+v", name, u)
		}
	}
	for name := range service {
		broken := maps.Clone(service)
		broken[name] = 1.5
		if u, err := parseUnit(general, broken); err == nil {
			t.Errorf("with a strange %s: %+v", name, u)
		}
	}
}

func TestUnitProperties(t *testing.T) {
	byName := func(c host.Command) map[string]any {
		all := make(map[string]any)
		for _, p := range unitProperties(host.SlotRollback, c, "n") {
			all[p.Name] = p.Value.Value()
		}
		return all
	}
	c := host.Command{Rollout: "r1", Closure: v1, Action: host.ActionTest, Timeout: 30 * time.Minute}
	p := byName(c)
	for name, want := range map[string]any{
		"Type": "oneshot", "RemainAfterExit": true, "TimeoutStartUSec": uint64(30 * 60 * 1e6), "KillMode": "mixed",
		"StandardOutput": "journal", "StandardError": "journal",
	} {
		if p[name] != want {
			t.Errorf("%s is %v, want %v", name, p[name], want)
		}
	}
	// The third field of an ExecStart means "ignore its failure".
	exec := dbus.MakeVariant(p["ExecStart"]).String()
	if !strings.Contains(exec, `"`+v1.Path()+`/bin/switch-to-configuration"`) || !strings.Contains(exec, `"test"`) || !strings.Contains(exec, "false") {
		t.Errorf("ExecStart is %s", exec)
	}
	if env := strings.Join(p["Environment"].([]string), " "); strings.Contains(env, "NIXOS_NO_CHECK") || !strings.Contains(env, "NIXFLEET_RUN=n") {
		t.Errorf("Environment is %s", env)
	}
	if fields := p["LogExtraFields"].([][]byte); len(fields) != 1 || string(fields[0]) != "NIXFLEET_RUN=n" {
		t.Errorf("LogExtraFields is %s", fields)
	}
	for _, name := range []string{"DefaultDependencies", "CollectMode", "Before", "Conflicts"} {
		if v, ok := p[name]; ok {
			t.Errorf("%s is %v", name, v)
		}
	}
	c.Alone, c.NoCheck, c.Timeout = true, true, 0
	p = byName(c)
	if p["DefaultDependencies"] != false || p["TimeoutStartUSec"] != ^uint64(0) {
		t.Errorf("%v", p)
	}
	if env := strings.Join(p["Environment"].([]string), " "); !strings.Contains(env, "NIXOS_NO_CHECK=1") {
		t.Errorf("Environment is %s", env)
	}
	for _, name := range []string{"Before", "Conflicts"} {
		if v, _ := p[name].([]string); len(v) != 1 || v[0] != "shutdown.target" {
			t.Errorf("%s is %v", name, p[name])
		}
	}
}

func TestFailedUnits(t *testing.T) {
	got := failedUnits([]systemd.UnitStatus{
		{Name: "z.service", ActiveState: "failed", SubState: "failed"},
		{Name: "fine.service", ActiveState: "active", SubState: "running"},
		{Name: "loops.service", ActiveState: "activating", SubState: "auto-restart"},
		{Name: "loops2.service", ActiveState: "activating", SubState: "auto-restart-queued"},
		{Name: "starts.service", ActiveState: "activating", SubState: "start"},
		{Name: "nixfleet-switch.service", ActiveState: "failed", SubState: "failed"},
		{Name: "data.mount", ActiveState: "failed", SubState: "failed"},
	})
	if want := "data.mount loops.service loops2.service z.service"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestDBusErrorsAreToldApart(t *testing.T) {
	err := error(dbus.Error{Name: errUnitExists, Body: []any{"Unit x was already loaded"}})
	if !isDBusError(errors.Join(errors.New("start"), err), errUnitExists) || isDBusError(err, errNoSuchUnit) || isDBusError(nil, errNoSuchUnit) {
		t.Error("not told apart")
	}
}

func TestJournalText(t *testing.T) {
	output := `{"MESSAGE":"first","__CURSOR":"x"}
{"MESSAGE":[98,105,110,255]}
{"MESSAGE":null}
{"__CURSOR":"no message"}
{"MESSAGE":"` + strings.Repeat("x", 100_000) + `"}
{"MESSAGE":"last"}
{"MESSAGE":"cut o`
	text := string(journalText([]byte(output)))
	if !strings.HasPrefix(text, "first\nbin\xff\n\n\nx") || !strings.HasSuffix(text, "x\nlast\n") {
		t.Errorf("%.40q … %q", text, text[len(text)-20:])
	}
}

func TestUnitStateOfAnyType(t *testing.T) {
	for _, test := range []struct {
		general, typed map[string]any
		want           host.UnitState
	}{
		{map[string]any{"LoadState": "loaded", "ActiveState": "failed"}, map[string]any{"Result": "exit-code"}, host.UnitState{Load: "loaded", Active: "failed", Result: "exit-code"}},
		{map[string]any{"LoadState": "loaded", "ActiveState": "active"}, nil, host.UnitState{Load: "loaded", Active: "active"}},
		{map[string]any{"LoadState": "not-found", "ActiveState": "inactive"}, nil, host.UnitState{Load: "not-found", Active: "inactive"}},
	} {
		if got, err := parseUnitState(test.general, test.typed); err != nil || got != test.want {
			t.Errorf("%v %v: %+v, %v", test.general, test.typed, got, err)
		}
	}
	for _, general := range []map[string]any{{"LoadState": "loaded"}, {"ActiveState": "active"}, {"LoadState": 1, "ActiveState": "active"}} {
		if got, err := parseUnitState(general, nil); err == nil {
			t.Errorf("%v: %+v", general, got)
		}
	}
	if got, err := parseUnitState(map[string]any{"LoadState": "loaded", "ActiveState": "active"}, map[string]any{"Result": 1}); err == nil {
		t.Errorf("%+v", got)
	}
}

func TestUnitStateWithoutSystemd(t *testing.T) {
	m := &Machine{root: t.TempDir()}
	if _, err := m.UnitState(t.Context(), "nginx.service"); !errors.Is(err, host.ErrNoSystemd) {
		t.Error(err)
	}
}
