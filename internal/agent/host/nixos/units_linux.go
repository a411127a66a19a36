package nixos

import (
	"context"
	"fmt"
	"slices"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"nixfleet/internal/agent/host"
)

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
