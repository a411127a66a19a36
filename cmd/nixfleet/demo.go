package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixfleet/internal/buildinfo"
	"nixfleet/internal/demo"
)

type demoCmd struct {
	Hosts int  `default:"6" help:"How many hosts (default: ${default})."`
	Keep  bool `help:"Leave the folder with all documents, databases, machines and logs."`
	Serve bool `help:"Go on after the acts until Ctrl-C."`
	JSON  bool `help:"Write one JSON object at the end; progress goes to standard error."`
}

// Help is shown by --help.
func (c *demoCmd) Help() string {
	return "Starts a control plane and agents as processes on the loopback interface, with machines that are directories, and plays acts with them. What each act shows is checked afterwards from the control plane's answers and the machines' directories; exits 0 only if all acts hold. Nothing is left behind."
}

func (c *demoCmd) Run(e *env) error {
	if c.Hosts < demo.MinHosts || c.Hosts > demo.MaxHosts {
		return wrongUse("--hosts %d: from %d to %d are allowed", c.Hosts, demo.MinHosts, demo.MaxHosts)
	}
	show := &demoProgress{out: e.out, styles: e.styles}
	if c.JSON {
		show = &demoProgress{out: e.err, styles: newStyles(e.err)}
	}
	report, err := demo.Run(e.ctx, demo.Config{Hosts: c.Hosts, Keep: c.Keep, Serve: c.Serve, Version: buildinfo.Version(), Say: show.say})
	if errors.Is(err, context.Canceled) {
		return errors.New("the demo was interrupted")
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if c.JSON {
		if err := writeJSON(e.out, report); err != nil {
			return err
		}
	}
	if !report.OK {
		return errors.New("not all acts hold")
	}
	return nil
}

// demoProgress writes what happens, for people.
type demoProgress struct {
	out    io.Writer
	styles styles
	acts   int
}

func (p *demoProgress) say(what demo.Progress) {
	switch what.Kind {
	case demo.ActBegins:
		p.acts++
		fmt.Fprintf(p.out, "\n%s\n", p.styles.bold.Render(fmt.Sprintf("Act %d, %s", p.acts, what.Text)))
	case demo.LookAt:
		fmt.Fprintln(p.out, p.styles.dim.Render("  look: "+what.Text))
	case demo.HostChanged:
		fmt.Fprintf(p.out, "  %-10s %s\n", what.Text, p.styles.state(what.State))
	case demo.ActHolds:
		fmt.Fprintf(p.out, "  %s %s\n", p.styles.good.Render("holds"), what.Text)
	case demo.ActBroken:
		fmt.Fprintf(p.out, "  %s %s\n", p.styles.bad.Render("BROKEN"), what.Text)
	default:
		fmt.Fprintf(p.out, "  %s\n", what.Text)
	}
}

// The hidden verbs are what a demo's machines run as their services and as what
// starts them, and what cleans up after a demo.

type demoServiceCmd struct {
	Name    string `arg:""`
	Root    string `arg:""`
	Closure string `arg:""`
}

func (c *demoServiceCmd) Run(e *env) error {
	return demo.Serve(e.ctx, c.Name, c.Root, c.Closure, e.out)
}

type demoServicesCmd struct {
	Root    string `arg:""`
	Closure string `arg:""`
}

func (c *demoServicesCmd) Run(e *env) error {
	return demo.RestartServices(e.ctx, c.Root, c.Closure)
}

type demoReaperCmd struct {
	Folder string `arg:""`
}

func (c *demoReaperCmd) Run(e *env) error { return demo.Reap(e.in, c.Folder) }
