package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// situation is what an agent finds when it starts: the journal held against the
// machine. Nothing is decided by it, that is lifecycle's and activation's; it is
// told once, for people, in the words of docs/recovery.md.
type situation struct {
	rollout string // "" on a host without one
	state   string
	boot    string
	current string
	unit    string
	guard   string
}

// What the journal says about the rollout that counts. Retried states are those
// after a boot that undid the activation.
const (
	foundIdle           = "Idle"
	foundFetching       = "Fetching"
	foundSwitching      = "Switching"
	foundSwitchingAgain = "Switching again"
	foundStaging        = "Staging"
	foundStagingAgain   = "Staging again"
	foundDeferred       = "Deferred"
	foundSoaking        = "Soaking"
	foundSoakingAgain   = "Soaking again"
	foundPersisted      = "Soaking persisted"
	foundRollingBack    = "Rolling back"
	foundConverged      = "Converged"
	foundEnded          = "Ended"
)

// The other columns; those of the unit are activation's.
const (
	bootSame = "same"
	bootNew  = "new"

	runsPrior   = "prior"
	runsTarget  = "target"
	runsOther   = "other"
	runsNothing = "-" // there is nothing to compare with

	guardNone  = "none"
	guardActed = "acted"

	unitUnknown = "unknown" // the machine did not tell
)

// atStart is what must be kept of a start until the machine is looked at.
type atStart struct {
	before     *state // as the last agent left it
	guardActed bool
}

// find compares what the last agent left with the machine, before anything that
// the new state wants is done to it.
func (a *Agent) find(ctx context.Context, s atStart, f host.Facts) situation {
	found := situation{state: foundIdle, boot: bootSame, current: runsNothing, unit: string(activation.NeverStarted), guard: guardNone}
	if s.guardActed {
		found.guard = guardActed
	}
	e := s.before.current()
	if e == nil {
		return found
	}
	found.rollout = e.Host.Rollout
	found.state = foundState(e.Host)
	found.boot = foundBoot(e, found.state, f)
	found.current = foundCurrent(e.Host, found.state, f)
	found.unit = a.foundUnit(ctx, e, found.state, f)
	return found
}

func foundState(h lifecycle.Host) string {
	choose := func(first, again string) string {
		if h.Retried {
			return again
		}
		return first
	}
	switch {
	case h.State == lifecycle.Activating && !h.Mutated:
		return foundFetching
	case h.State == lifecycle.Activating && h.SwitchMethod == lifecycle.MethodBoot:
		return choose(foundStaging, foundStagingAgain)
	case h.State == lifecycle.Activating:
		return choose(foundSwitching, foundSwitchingAgain)
	case h.State == lifecycle.Deferred:
		return foundDeferred
	case h.State == lifecycle.Soaking && h.Persisted:
		return foundPersisted
	case h.State == lifecycle.Soaking:
		return choose(foundSoaking, foundSoakingAgain)
	case h.State == lifecycle.Failed && h.RollbackOwed:
		return foundRollingBack
	case h.State == lifecycle.Converged:
		return foundConverged
	}
	return foundEnded
}

// foundBoot tells whether the machine has booted: since the target was to be
// fetched or staged, else since it was last seen.
func foundBoot(e *entry, state string, f host.Facts) string {
	known := e.Host.BootID
	switch state {
	case foundFetching:
		known = cmp.Or(stepMark(e, activation.StepFetch).BootID, known)
	case foundStaging, foundStagingAgain, foundDeferred:
		known = e.Host.StartBootID
	}
	if known == "" || known == f.BootID {
		return bootSame
	}
	return bootNew
}

// foundCurrent says what runs. As long as the target was not live, prior is also
// the system of a superseded rollout that ran when this one began.
func foundCurrent(h lifecycle.Host, state string, f host.Facts) string {
	current := cmp.Or(f.Current, h.Current) // what is no system says nothing
	back := []fleet.Closure{h.Prior}
	switch state {
	case foundFetching:
		back = []fleet.Closure{h.Current}
	case foundSwitching, foundSwitchingAgain, foundStaging, foundStagingAgain, foundDeferred:
		back = append(back, h.Ran)
	}
	goesBack := state == foundRollingBack && current == h.Prior
	switch {
	case current == h.Target && !goesBack:
		return runsTarget
	case slices.Contains(back, current):
		return runsPrior
	}
	return runsOther
}

func (a *Agent) foundUnit(ctx context.Context, e *entry, state string, f host.Facts) string {
	h := e.Host
	s := activation.Spec{Rollout: h.Rollout, Target: h.Target, Prior: h.Prior, Ran: h.Ran}
	find := func() (activation.Found, error) {
		return activation.FindSwitch(ctx, a.machine, s, stepMark(e, activation.StepSwitch), f)
	}
	if state == foundRollingBack {
		find = func() (activation.Found, error) { return activation.FindRollback(ctx, a.machine, s) }
	}
	unit, err := find()
	if err != nil {
		a.log.Warn("the unit could not be looked at", "err", err)
		return unitUnknown
	}
	return string(unit)
}

// stepMark is the mark that a step left; zero where none can be read, which the
// step itself reports.
func stepMark(e *entry, s activation.Step) activation.Mark {
	var m activation.Mark
	if json.Unmarshal(e.Steps[string(s)], &m) != nil {
		return activation.Mark{}
	}
	return m
}

// recoveryRow is a row of the table in docs/recovery.md, without what follows. A
// cell is "any", or values separated by commas.
type recoveryRow struct{ id, state, boot, current, unit, guard string }

var recoveryRows = []recoveryRow{
	{"R01", "Idle", "any", "any", "any", "none"},
	{"R02", "Idle, Fetching", "any", "any", "any", "acted"},
	{"R03", "Fetching", "same", "any", "any", "none"},
	{"R04", "Fetching", "new", "any", "any", "none"},
	{"R05", "Switching, Switching again", "same", "prior, target", "never started", "none"},
	{"R06", "Switching, Switching again", "same", "any", "running", "none"},
	{"R07", "Switching, Switching again", "same", "target", "ended ok", "none"},
	{"R08", "Switching, Switching again", "same", "target", "gone", "none"},
	{"R09", "Switching, Switching again", "same", "target", "ended badly, gone twice", "none"},
	{"R10", "Switching, Switching again", "same", "prior", "ended ok, ended badly, gone, gone twice", "none"},
	{"R11", "Switching, Switching again", "same", "prior", "refused", "none"},
	{"R12", "Staging, Staging again", "same", "prior, target", "any", "none"},
	{"R13", "Switching, Soaking", "new", "prior", "any", "none"},
	{"R14", "Staging", "new", "prior", "any", "none"},
	{"R15", "Switching again, Staging again, Deferred, Soaking again, Soaking persisted", "new", "prior", "any", "none"},
	{"R16", "Switching, Switching again", "new", "target", "any", "none"},
	{"R17", "Staging, Staging again", "new", "target", "any", "none"},
	{"R18", "Deferred", "same", "prior, target", "any", "none"},
	{"R19", "Deferred", "new", "target", "any", "none"},
	{"R20", "Soaking, Soaking again, Soaking persisted", "same", "target", "any", "none"},
	{"R21", "Soaking, Soaking again, Soaking persisted", "same", "prior", "any", "none"},
	{"R22", "Soaking, Soaking again, Soaking persisted", "new", "target", "any", "none"},
	{"R23", "Switching, Switching again, Staging, Staging again, Deferred, Soaking, Soaking again, Soaking persisted", "any", "other", "never started, ended ok, ended badly, gone, gone twice", "none"},
	{"R24", "Switching, Switching again, Staging, Staging again, Soaking, Soaking again, Soaking persisted", "any", "any", "any", "acted"},
	{"R25", "Deferred", "any", "any", "any", "acted"},
	{"R26", "Rolling back", "any", "any", "running", "none"},
	{"R27", "Rolling back", "any", "any", "never started, ended ok, ended badly", "none"},
	{"R28", "Rolling back", "any", "any", "any", "acted"},
	{"R29", "Converged", "any", "target", "any", "none"},
	{"R30", "Converged", "any", "prior, other", "any", "none"},
	{"R31", "Ended", "any", "any", "any", "none"},
	{"R32", "Converged, Ended", "any", "any", "any", "acted"},
}

// matches tells whether a situation is one of the row's.
func (r recoveryRow) matches(s situation) bool {
	for _, c := range [][2]string{{r.state, s.state}, {r.boot, s.boot}, {r.current, s.current}, {r.unit, s.unit}, {r.guard, s.guard}} {
		if cell, value := c[0], c[1]; cell != "any" && !slices.Contains(strings.Split(cell, ", "), value) {
			return false
		}
	}
	return true
}

// row is the row of the situation; "" for what no host should show.
func (s situation) row() string {
	for _, r := range recoveryRows {
		if r.matches(s) {
			return r.id
		}
	}
	return ""
}

// tellFound logs what was found. The keys and their values are fixed.
func (a *Agent) tellFound(s situation) {
	a.log.Info("found after the start",
		"row", s.row(), "rollout", s.rollout, "state", s.state, "boot", s.boot, "current", s.current, "unit", s.unit, "guard", s.guard)
}
