// Nixfleet-agent is the daemon on each host of a fleet: it takes signed targets,
// switches the machine to them, watches them, and goes back when they are bad.
//
// Exit codes: 0 it ended as asked, 1 it could not do its work, 2 wrong use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

const (
	exitOK  = 0
	exitNo  = 1
	exitUse = 2
)

// cli is every verb. Each has a file of its own.
type cli struct {
	Run          runCmd          `cmd:"" default:"withargs" help:"Run the agent. This is what is done without a verb."`
	Status       statusCmd       `cmd:"" help:"Show what the agent on this host does, since when, and what it waits for."`
	Doctor       doctorCmd       `cmd:"" help:"Look at everything that the agent needs on this host, and say what to do about what is wrong. Takes the flags of run."`
	Unquarantine unquarantineCmd `cmd:"" help:"Let closures be tried again that failed on this host."`
	Hold         holdCmd         `cmd:"" help:"Take no new targets on this host for a while; what is under way goes on."`
	Release      releaseCmd      `cmd:"" help:"End a hold."`
	Guard        guardCmd        `cmd:"" help:"Watch the agent, and take the host back to what it ran before when the agent cannot."`
	Version      versionCmd      `cmd:"" help:"Show the version."`
	CheckJournal checkJournalCmd `cmd:"" hidden:"" help:"Look for damage in a journal."`
	GuardView    guardViewCmd    `cmd:"" hidden:"" help:"Read what a guard must know."`
}

// env is what a verb may use of the process it runs in.
type env struct {
	ctx context.Context
	out io.Writer
	err io.Writer
}

func main() {
	// The first signal asks the agent to end; a second one, with the handler gone,
	// ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	var c cli
	parser, err := kong.New(&c,
		kong.Name("nixfleet-agent"),
		kong.Description("Keeps this host on the system that its fleet's owner signed. Every flag can be set as NIXFLEET_AGENT_<FLAG>."),
		kong.Writers(out, errOut),
		kong.DefaultEnvars("NIXFLEET_AGENT"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // a mistake in the struct tags
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(errOut, "nixfleet-agent: %v\n", err)
		return exitUse
	}
	err = kctx.Run(&env{ctx: ctx, out: out, err: errOut})
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errNotWell) {
		return exitNo // the findings were printed
	}
	fmt.Fprintf(errOut, "nixfleet-agent: %v\n", err)
	var use *wrongUse
	if errors.As(err, &use) {
		return exitUse
	}
	return exitNo
}

// wrongUse is a setting that cannot be.
type wrongUse struct{ error }

func (e *wrongUse) Unwrap() error { return e.error }
