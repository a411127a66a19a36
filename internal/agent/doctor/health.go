package doctor

import (
	"context"
	"strings"

	"nixfleet/internal/agent/probe"
)

// healthChecks are the probes that this system declares: whether they can be run,
// not what they find.
type healthChecks struct{ file string }

func (healthChecks) name() string { return "health-checks" }

func (c healthChecks) look(context.Context) Finding {
	topology := probe.Load(c.file, probe.Machine{})
	var broken []string
	for _, p := range topology.Probes {
		if p.Broken != "" {
			broken = append(broken, p.Name+": "+p.Broken)
		}
	}
	switch {
	case len(broken) > 0:
		return wrong("correct "+c.file+": as it is, these fail and take every new system back", "%s", strings.Join(broken, "; "))
	case len(topology.Probes) == 0:
		return well("none is declared in %s", c.file)
	}
	return well("%d can be run", len(topology.Probes))
}
