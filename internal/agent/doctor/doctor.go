// Package doctor looks at everything that an agent needs for its start and its
// work, and says of each whether it is well and, if not, what to do.
//
// It promises that it changes nothing, that it ends in time whatever hangs, and
// that it judges by the agent's own rules: each check asks the code that the agent
// asks. It needs an agent's settings and its machine, and no agent that runs: one
// that does is not disturbed, because no lock is taken and the journal is not
// opened.
//
// It never fixes anything, and never says that something is well which it could
// not look at.
package doctor

import (
	"context"
	"fmt"
	"net"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/uplink"
)

// Verdict is what a check found.
type Verdict string

// The verdicts.
const (
	Well    Verdict = "ok"
	Wrong   Verdict = "wrong"
	Skipped Verdict = "skipped" // it could not be looked at, or there is no such thing here
)

// Finding is the outcome of one check.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`           // what was seen, or why nothing was
	Remedy  string  `json:"remedy,omitempty"` // with Wrong: what to do
}

// Patient is who is looked at.
type Patient struct {
	Config agent.Config
	// Machine is nil where it could not be opened; MachineErr says why.
	Machine    host.Machine
	MachineErr error
	// Dial reaches the control plane and the caches; nil: a plain dialler.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// limit is how long one check may take.
const limit = 20 * time.Second

// check is one thing that is looked at.
type check interface {
	// name is its name in a Finding.
	name() string
	// look returns soon after ctx has ended, where what it asks lets it.
	look(ctx context.Context) Finding
}

// Examine makes all checks at once and gives their findings, always in the same
// order.
func Examine(ctx context.Context, p Patient) []Finding {
	return examine(ctx, p.checks(), limit)
}

func (p Patient) checks() []check {
	all := []check{
		stateDirectory{p.Config.StateDir},
		hostKey{p.Config.SSHHostKeyFile},
		trustFile{p.Config.TrustFile},
		certificate{p.Config},
		controlPlane{p},
		kernelClock{p.Config},
		clockOffset{p},
		secondUplink{p.Config, net.DefaultResolver.LookupHost},
		caches{p},
		confirmURLs{p},
		machine{p},
		nixSettings{p},
		storeSpace{p},
		bootSpace{p},
		switchLock{p},
		guardUnits{p},
		healthChecks{p.Config.HealthChecksFile},
	}
	if p.Config.ClientKeyFile != p.Config.SSHHostKeyFile {
		all = append(all, clientKey{p.Config.ClientKeyFile})
	}
	return all
}

func examine(ctx context.Context, checks []check, limit time.Duration) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found := make([]chan Finding, len(checks))
	for i, c := range checks {
		found[i] = make(chan Finding, 1) // so that a check that comes too late ends as well
		go func() { found[i] <- c.look(ctx) }()
	}
	findings := make([]Finding, len(checks))
	for i, c := range checks {
		findings[i] = await(ctx, found[i], limit)
		findings[i].Check = c.name()
	}
	return findings
}

// lateness is how long a check that heard of its deadline may take to say so.
const lateness = time.Second

// await waits for a check, and not for one that hangs in the kernel's hands, as on
// a file system whose server is gone.
func await(ctx context.Context, found <-chan Finding, limit time.Duration) Finding {
	select {
	case f := <-found:
		return f
	case <-ctx.Done():
	}
	select {
	case f := <-found:
		return f
	case <-time.After(lateness):
		return wrong("look at what hangs: a disk or file system that does not answer, or a program that does not end",
			"nothing was found out within %s", limit)
	}
}

func well(format string, args ...any) Finding {
	return Finding{Verdict: Well, Detail: fmt.Sprintf(format, args...)}
}

func wrong(remedy, format string, args ...any) Finding {
	return Finding{Verdict: Wrong, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func skipped(format string, args ...any) Finding {
	return Finding{Verdict: Skipped, Detail: fmt.Sprintf(format, args...)}
}

// AllWell tells whether nothing was found to be wrong.
func AllWell(findings []Finding) bool {
	for _, f := range findings {
		if f.Verdict == Wrong {
			return false
		}
	}
	return true
}

// uplink is a client of its own, as the agent's.
func (p Patient) uplink() *uplink.Client {
	return uplink.New(uplink.Config{
		URL:          p.Config.ControlPlane,
		CACertFile:   p.Config.CACertFile,
		CertFile:     p.Config.ClientCertFile,
		KeyFile:      p.Config.ClientKeyFile,
		AgentVersion: p.Config.Version,
		Dial:         p.Dial,
	})
}
