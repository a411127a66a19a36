// Package demo is a whole fleet on one machine, in one command: a control plane,
// agents, a binary cache and machines that are directories, all real programs on
// the loopback interface.
//
// It promises that what it reports was found out afterwards, from the control
// plane's answers and the machines' directories, and that it leaves no process
// and no file behind, however it ends. It needs no privileges, no Nix and no
// network, and the programs of its own build. It never fakes an outcome: an act
// that did not work is reported as broken.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// How many hosts a demo may have: a canary and others are needed.
const (
	MinHosts = 2
	MaxHosts = 64
)

// hostSystem is what the machines of a demo are built for.
var hostSystem = host.System()

// Config is one demo.
type Config struct {
	Hosts    int
	Keep     bool   // leave the folder
	Serve    bool   // go on after the acts until ctx ends
	Version  string // of the running program
	Programs *Programs
	Say      func(Progress)

	acts []act // nil: the demo's own
}

// Progress is something that a person may want to see at once.
type Progress struct {
	Kind  ProgressKind
	Text  string
	State lifecycle.State // of HostChanged
}

// ProgressKind tells Progresses apart.
type ProgressKind int

// The kinds of progress.
const (
	Note        ProgressKind = iota // something that the demo did
	ActBegins                       // the act's title
	LookAt                          // what to look at in it
	HostChanged                     // Text is the host
	ActHolds                        // the verdict
	ActBroken
)

// Report is what a demo found out.
type Report struct {
	OK    bool         `json:"ok"`
	Acts  []ActReport  `json:"acts"`
	Hosts []HostReport `json:"hosts"`
}

// ActReport is the verdict on one act.
type ActReport struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail"`
}

// HostReport is a host at the end.
type HostReport struct {
	Name    string          `json:"name"`
	State   lifecycle.State `json:"state"`
	Current fleet.Closure   `json:"current"`
	Target  fleet.Closure   `json:"target"`
}

// Run runs a demo. An error means that it could not be run to its end; acts that
// do not hold are in the report.
func Run(ctx context.Context, c Config) (report Report, err error) {
	folder, err := os.MkdirTemp("", "nixfleet-demo-")
	if err != nil {
		return Report{}, err
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return Report{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return Report{}, err
	}
	if c.Programs != nil {
		self = c.Programs.Nixfleet
	}
	reaper, err := startReaper(self, folder)
	if err != nil {
		return Report{}, errors.Join(err, os.RemoveAll(folder))
	}
	w := &world{folder: folder, say: c.Say, supervisor: newSupervisor(ctx, folder), told: map[string]lifecycle.State{}}
	defer func() {
		// From here on nothing is started; the reaper ends what runs.
		w.supervisor.cancel(nil)
		err = errors.Join(err, reaper.finish(c.Keep))
		w.close()
		if c.Keep {
			c.Say(Progress{Kind: Note, Text: "left everything in " + folder})
		}
	}()
	if c.Programs != nil {
		w.programs = *c.Programs
	} else if w.programs, err = FindPrograms(w.supervisor.ctx, c.Version, w.in("bin"), func(text string) { c.Say(Progress{Kind: Note, Text: text}) }); err != nil {
		return Report{}, err
	}
	return w.perform(w.supervisor.ctx, c)
}

// perform builds the world, plays the acts and judges them.
func (w *world) perform(ctx context.Context, c Config) (Report, error) {
	w.say(Progress{Kind: Note, Text: fmt.Sprintf("a fleet of %d hosts in %s", c.Hosts, w.folder)})
	if err := w.build(ctx, c.Hosts); err != nil {
		return Report{}, cause(ctx, err)
	}
	list := c.acts
	if list == nil {
		list = acts()
	}
	report := Report{OK: true, Acts: []ActReport{}, Hosts: []HostReport{}}
	for _, a := range list {
		result, err := w.show(ctx, a)
		if err != nil {
			return report, cause(ctx, err)
		}
		report.Acts = append(report.Acts, result)
		report.OK = report.OK && result.OK
	}
	views, err := operator.List[wire.HostView](ctx, w.operator, wire.PathHosts, "")
	if err != nil {
		return report, cause(ctx, err)
	}
	for _, v := range views {
		report.Hosts = append(report.Hosts, HostReport{Name: v.Hostname, State: v.State, Current: v.Current, Target: v.Target})
	}
	if c.Serve {
		w.say(Progress{Kind: Note, Text: "the fleet goes on until Ctrl-C; ask it with: nixfleet status --config " + shellQuote(w.keys.Config())})
		<-ctx.Done()
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			return report, err
		}
	}
	return report, nil
}

// show plays an act and judges it.
func (w *world) show(ctx context.Context, a act) (ActReport, error) {
	w.say(Progress{Kind: ActBegins, Text: a.title})
	w.say(Progress{Kind: LookAt, Text: a.look})
	began := time.Now()
	id, err := a.play(ctx, w)
	if err != nil {
		return ActReport{}, fmt.Errorf("act %s: %w", a.name, err)
	}
	v, err := w.judge(ctx, a, id)
	if err != nil {
		return ActReport{}, fmt.Errorf("act %s: %w", a.name, err)
	}
	kind := ActHolds
	if !v.ok {
		kind = ActBroken
	}
	w.say(Progress{Kind: kind, Text: a.name + ": " + v.detail})
	return ActReport{Name: a.name, OK: v.ok, Seconds: time.Since(began).Round(100 * time.Millisecond).Seconds(), Detail: v.detail}, nil
}

// judge makes findings and the verdict on them, again for a while if it is bad:
// what a host did last may still be on its way to the control plane.
func (w *world) judge(ctx context.Context, a act, id string) (verdict, error) {
	v := broken("nothing could be found out about it")
	err := w.until(ctx, settleLimit, func(ctx context.Context) (bool, error) {
		f, err := w.find(ctx, id)
		if err == nil && a.also != nil {
			err = a.also(w, ctx, f)
		}
		if err != nil {
			return false, err
		}
		v = a.holds(f)
		return v.ok, nil
	})
	return v, err
}

// cause is why a demo ended before its end: a daemon that does not stay up, or
// an interruption, rather than what that led to.
func cause(ctx context.Context, err error) error {
	if reason := context.Cause(ctx); reason != nil {
		return reason
	}
	return err
}
