package activation

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// refuses is the program of a closure that a check of its own keeps from being
// made live.
const refuses = `case $action in
test) echo "Pre-switch check 'switchInhibitors' failed" >&2; echo "Pre-switch checks failed" >&2; exit 1 ;;
*) obey ;;
esac`

// inhibited is a closure that says what it may not swap.
func (w *world) inhibited(rollout, name, script, dbus string) fleet.Closure {
	w.t.Helper()
	c := w.cache.ClosureWith(name, script, map[string]string{inhibitorsFile: `{"dbus-implementation": "` + dbus + `"}`})
	w.fetch(rollout, c)
	return c
}

// newStagedWorld is a machine on a prior with the one D-Bus, and a target with the
// other.
func newStagedWorld(t *testing.T, priorScript, targetScript string) *world {
	t.Helper()
	w := newWorld(t, hosttest.Obey)
	w.spec.Prior = w.inhibited("r1", "with-dbus", priorScript, "dbus")
	w.live(w.spec.Prior)
	w.spec.Target = w.inhibited("r2", "with-broker", targetScript, "broker")
	return w
}

func (w *world) doStage() (lifecycle.Body, error) { return Stage(w.t.Context(), w.m, w.spec) }

func (w *world) powerCycle() {
	w.t.Helper()
	if err := w.m.PowerCycle(); err != nil {
		w.t.Fatal(err)
	}
}

// at fails the test when the machine is not where it should be.
func (w *world) at(current, boots fleet.Closure) {
	w.t.Helper()
	if f := w.facts(); f.Current != current || f.BootDefault != boots || f.Profile != boots {
		w.t.Errorf("%+v; want current %s, booting %s", f, current, boots)
	}
}

func TestStage(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, hosttest.Obey, `echo $action >>"$NIXFLEET_ROOT/calls"; obey`)
	if method, err := Method(w.m, w.spec.Prior, w.spec); err != nil || method != lifecycle.MethodBoot {
		t.Fatalf("%q, %v", method, err)
	}
	for range 2 { // the second time there is nothing to do
		body, err := w.doStage()
		if got := is[lifecycle.ActivationDeferred](t, body, err); got.Component != "dbus-implementation" {
			t.Errorf("%+v", got)
		}
		w.at(w.spec.Prior, w.spec.Target)
	}
	if got := w.read("calls"); got != "boot\n" {
		t.Errorf("calls:\n%s", got)
	}
	w.powerCycle()
	w.at(w.spec.Target, w.spec.Target)

	// Staged, and the power failed before that was journalled.
	body, err := w.doStage()
	is[lifecycle.ActivationDeferred](t, body, err)
	w.at(w.spec.Target, w.spec.Target)
}

func TestMethod(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	for _, running := range []fleet.Closure{w.v1, ""} {
		if method, err := Method(w.m, running, w.spec); err != nil || method != lifecycle.MethodTestThenBoot {
			t.Errorf("from %q: %q, %v", running, method, err)
		}
	}
}

// A third system boots: it is prior's turn before the target's, so that what goes
// wrong with the target leads to prior.
func TestStageSecuresTheWayBack(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, hosttest.Obey, "exit 1")
	if _, _, err := makeDefault(t.Context(), w.m, w.spec, w.v1, true); err != nil {
		t.Fatal(err)
	}
	body, err := w.doStage()
	got := is[lifecycle.ActivationFailed](t, body, err)
	if got.Phase != lifecycle.PhaseSwitch || !got.Mutated || got.ExitCode != 1 || !strings.Contains(got.StderrTail, "could not be staged") {
		t.Errorf("%+v", got)
	}
	if f := w.facts(); f.BootDefault != w.spec.Prior || f.Current != w.spec.Prior {
		t.Errorf("%+v", f)
	}
}

// A34: the program says that all went well, and the boot loader has another default.
func TestStageReadsBack(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, hosttest.Obey, "exit 0")
	body, err := w.doStage()
	if got := is[lifecycle.ActivationFailed](t, body, err); !got.Mutated || !strings.Contains(got.StderrTail, "still boots") {
		t.Errorf("%+v", got)
	}
}

// A18: what the checks before did not see, the target's own program refuses.
func TestRefusedSwitchIsStaged(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, hosttest.Obey, refuses)
	body, err := w.doSwitch()
	if got := is[lifecycle.ActivationDeferred](t, body, err); got.Component != "dbus-implementation" {
		t.Errorf("%+v", got)
	}
	w.at(w.spec.Prior, w.spec.Target)
	body, err = w.doSwitch() // the agent crashed before it was journalled
	is[lifecycle.ActivationDeferred](t, body, err)
}

// Staged, and taken back before the boot: no program makes anything live, although
// a switch was tried and did not end well.
func TestStagedIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, `echo $action >>"$NIXFLEET_ROOT/calls"; obey`, refuses)
	body, err := w.doSwitch()
	is[lifecycle.ActivationDeferred](t, body, err)
	w.write("calls", "")
	body, err = w.doRollback()
	is[lifecycle.RollbackComplete](t, body, err)
	w.at(w.spec.Prior, w.spec.Prior)
	if got := w.read("calls"); got != "boot\n" {
		t.Errorf("calls:\n%s", got)
	}
}

// A29: the way back from what was booted into is a boot: prior is its default, and
// nothing is swapped under the running system.
func TestOnlyABootGoesBack(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, `echo $action >>"$NIXFLEET_ROOT/calls"; obey`, hosttest.Obey)
	body, err := w.doStage()
	is[lifecycle.ActivationDeferred](t, body, err)
	w.powerCycle()
	w.write("calls", "")
	body, err = w.doRollback()
	got := is[lifecycle.RollbackFailed](t, body, err)
	if !got.BootRequired || got.Phase != lifecycle.PhaseSwitch || !strings.Contains(got.StderrTail, "dbus-implementation") {
		t.Errorf("%+v", got)
	}
	w.at(w.spec.Target, w.spec.Prior)
	if got := w.read("calls"); got != "boot\n" {
		t.Errorf("calls:\n%s", got)
	}
	w.powerCycle()
	body, err = w.doRollback()
	is[lifecycle.RollbackComplete](t, body, err)
	w.at(w.spec.Prior, w.spec.Prior)
}

// A broken list is nobody's verdict on the target.
func TestUnreadableInhibitorsAreWaitedOut(t *testing.T) {
	t.Parallel()
	w := newStagedWorld(t, hosttest.Obey, hosttest.Obey)
	list := filepath.Join(w.m.Path(w.spec.Target), inhibitorsFile)
	if err := errors.Join(os.Remove(list), os.Mkdir(list, 0o755)); err != nil {
		t.Fatal(err)
	}
	var wait *Wait
	if body, err := w.doStage(); body != nil || !errors.As(err, &wait) {
		t.Errorf("%#v, %v", body, err)
	}
	if f := w.facts(); f.BootDefault != w.spec.Prior {
		t.Errorf("%+v", f)
	}
}
