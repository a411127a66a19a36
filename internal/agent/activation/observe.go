package activation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
)

// Observe looks at the machine. When what runs, or what boots, is a specialisation
// of one of the known closures, it is that closure.
func Observe(ctx context.Context, m host.Machine, known ...fleet.Closure) (host.Facts, error) {
	f, err := look(ctx, m, known...)
	if err != nil {
		return host.Facts{}, fmt.Errorf("look at the machine: %w", err)
	}
	f.Current = Base(m, f.Current, known...)
	return f, nil
}

// look reads the machine's facts. When what boots is a specialisation of one of the
// known closures, as a system may have it by default, that closure boots.
func look(ctx context.Context, m host.Machine, known ...fleet.Closure) (host.Facts, error) {
	f, err := m.Facts(ctx)
	f.BootDefault = Base(m, f.BootDefault, known...)
	return f, err
}

// Base is the one of the known closures that the running one is a specialisation
// of, else the running one itself.
func Base(m host.Machine, running fleet.Closure, known ...fleet.Closure) fleet.Closure {
	if running == "" || slices.Contains(known, running) {
		return running
	}
	for _, c := range known {
		links, err := filepath.Glob(filepath.Join(m.Path(c), "specialisation", "*"))
		if err != nil {
			continue // only a bad pattern is an error
		}
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && filepath.Base(to) == string(running) {
				return c
			}
		}
	}
	return running
}

const (
	settlePoll    = time.Second
	settleTimeout = 5 * time.Minute
)

// settledUnits is the health of the machine's units, once it has started up or
// had five minutes for it.
func settledUnits(ctx context.Context, m host.Machine) (host.Units, error) {
	for waited := time.Duration(0); ; waited += settlePoll {
		units, err := m.Units(ctx)
		if err != nil {
			return host.Units{}, transient(ctx, "look at the units", err)
		}
		if units.Settled || waited >= settleTimeout {
			return units, nil
		}
		if err := sleep(ctx, settlePoll); err != nil {
			return host.Units{}, fmt.Errorf("wait for the machine to settle: %w", err)
		}
	}
}

// newlyFailed are the units that failed, or were restarted more often, since
// before: what a switch broke, not what was broken.
func newlyFailed(before, after host.Units) []string {
	var names []string
	for _, name := range after.Failed {
		if !slices.Contains(before.Failed, name) {
			names = append(names, name)
		}
	}
	for name, n := range after.Restarts {
		if n > before.Restarts[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
