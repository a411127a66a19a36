package nixos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"nixfleet/internal/agent/host"
)

var _ host.UnitReader = (*Machine)(nil)

// Units asks for failed units, for those that wait to be restarted, which systemd
// does not call failed, and how often each service was restarted.
func (m *Machine) Units(ctx context.Context) (host.Units, error) {
	var units host.Units
	err := talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		state, err := c.SystemStateContext(ctx)
		if err != nil {
			return err
		}
		word, _ := state.Value.Value().(string)
		units.Settled = word != "initializing" && word != "starting"
		all, err := c.ListUnitsFilteredContext(ctx, []string{"active", "activating", "failed"})
		if err != nil {
			return err
		}
		units.Failed = failedUnits(all)
		units.Restarts, err = restarts(ctx, c, all)
		return err
	})
	if err != nil {
		return host.Units{}, fmt.Errorf("look at the units: %w", err)
	}
	return units, nil
}

// failedUnits leaves out our own: what became of a switch is not a service's
// failure.
func failedUnits(all []systemd.UnitStatus) []string {
	var names []string
	for _, u := range all {
		if (u.ActiveState == "failed" || strings.HasPrefix(u.SubState, "auto-restart")) && !ours(u.Name) {
			names = append(names, u.Name)
		}
	}
	slices.Sort(names)
	return names
}

func ours(name string) bool {
	return slices.Contains([]host.Slot{host.SlotSwitch, host.SlotBoot, host.SlotRollback, host.SlotGuard}, host.Slot(strings.TrimSuffix(name, ".service")))
}

func restarts(ctx context.Context, c *systemd.Conn, all []systemd.UnitStatus) (map[string]uint32, error) {
	counts := make(map[string]uint32)
	for _, u := range all {
		if !strings.HasSuffix(u.Name, ".service") {
			continue
		}
		p, err := c.GetServicePropertyContext(ctx, u.Name, "NRestarts")
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			continue // it went away since it was listed
		}
		if n, _ := p.Value.Value().(uint32); n > 0 {
			counts[u.Name] = n
		}
	}
	return counts, nil
}

// bootedDir is there while systemd manages the host, and only then; sd_booted(3).
const bootedDir = "/run/systemd/system"

// resultTypes are the types of units that have a result, and the names of their
// interfaces.
var resultTypes = map[string]string{
	".service": "Service", ".socket": "Socket", ".mount": "Mount", ".automount": "Automount",
	".swap": "Swap", ".timer": "Timer", ".path": "Path", ".scope": "Scope",
}

// UnitState asks for a unit's state, and its result where its type has one.
func (m *Machine) UnitState(ctx context.Context, name string) (u host.UnitState, err error) {
	if _, err := os.Stat(m.root + bootedDir); errors.Is(err, fs.ErrNotExist) {
		return host.UnitState{}, host.ErrNoSystemd
	}
	err = talk(ctx, func(ctx context.Context, c *systemd.Conn) error {
		general, err := c.GetUnitPropertiesContext(ctx, name)
		if err != nil {
			return err
		}
		typed := map[string]any{}
		if t, ok := resultTypes[filepath.Ext(name)]; ok && general["LoadState"] != "not-found" {
			if typed, err = c.GetUnitTypePropertiesContext(ctx, name, t); err != nil {
				return err
			}
		}
		u, err = parseUnitState(general, typed)
		return err
	})
	if isDBusError(err, errNoSuchUnit) {
		return host.UnitState{Load: "not-found"}, nil
	}
	return u, err
}

// parseUnitState reads the properties of the interface Unit and of the unit's own
// type.
func parseUnitState(general, typed map[string]any) (host.UnitState, error) {
	var u host.UnitState
	var problems error
	read(general, "LoadState", &u.Load, &problems)
	read(general, "ActiveState", &u.Active, &problems)
	if _, ok := typed["Result"]; ok {
		read(typed, "Result", &u.Result, &problems)
	}
	return u, problems
}
