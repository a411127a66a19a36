package doctor

import (
	"context"
	"errors"
	"io/fs"

	"nixfleet/internal/agent"
	"nixfleet/internal/trust"
)

// kernelClock is the machine's clock as the machine itself knows it.
type kernelClock struct{ cfg agent.Config }

func (kernelClock) name() string { return "clock" }

func (c kernelClock) look(context.Context) Finding {
	ask := c.cfg.Clock
	if ask == nil {
		ask = agent.KernelClock
	}
	marks, err := trust.LoadMarks(c.cfg.MarksFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrong("look at the disk; the agent goes on with the marks of its journal", "the marks of accepted documents cannot be read: %v", err)
	}
	state := ask()
	if err := agent.ClockSuspect(c.cfg.ClockPolicy, state, marks, c.cfg.BuiltAt); err != nil {
		return wrong("look at the time service (timedatectl timesync-status, chronyc tracking); a machine without one may run with --clock-policy trust", "%v: no new targets are taken", err)
	}
	if !state.Synchronised {
		return well("believed, though not synchronised: no time service runs, or --clock-policy is trust")
	}
	return well("synchronised")
}

// clockOffset compares it with the control plane's.
type clockOffset struct{ p Patient }

func (clockOffset) name() string { return "clock-offset" }

func (c clockOffset) look(ctx context.Context) Finding {
	client := c.p.uplink()
	defer client.Close()
	if err := client.Reach(ctx); err != nil {
		return skipped("the control plane does not answer")
	}
	offset, limit := client.ClockOffset(), c.p.Config.MaxClockSkew
	if agent.ClockSkewed(offset, limit) {
		return wrong("set the clock that is wrong, this host's or the control plane's, and let a time service keep both (timedatectl set-ntp true)",
			"this host's clock is %s from the control plane's; %s is allowed (--max-clock-skew)", offset, limit)
	}
	return well("%s from the control plane's", offset)
}
