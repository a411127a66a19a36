// Nixfleet is the tool of a fleet's owner and of their CI: it makes and verifies
// the signed documents, mints identities, asks the control plane what is going
// on, and shows a whole fleet on one machine (nixfleet demo).
//
// Exit codes, for every verb:
//
//	0  it is as asked
//	1  it is not: a document that does not verify, a release that was refused, a
//	   rollout that halted, a control plane that answered no
//	2  wrong use: an unknown flag, a file that is not there, a missing setting
//	3  the time given with --timeout ran out (rollout wait)
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

// The exit codes of every verb.
const (
	exitOK      = 0
	exitNo      = 1
	exitUse     = 2
	exitTimeout = 3
)

// cli is every verb. Each has a file of its own.
type cli struct {
	Demo         demoCmd         `cmd:"" help:"Run a whole fleet on this machine: no root, no Nix, no network, under a minute."`
	Init         initCmd         `cmd:"" help:"Make a new fleet folder: keys, certificates, trust roots and an example fleet."`
	Release      releaseCmd      `cmd:"" help:"Sign a fleet with its closures and publish it."`
	Status       statusCmd       `cmd:"" help:"Show the fleet."`
	Why          whyCmd          `cmd:"" help:"Say why a host is not converged, and the facts behind it."`
	Rollout      rolloutCmd      `cmd:"" help:"Look at rollouts, and wait for one."`
	Host         hostCmd         `cmd:"" help:"Look at hosts, add and forget them."`
	Channel      channelCmd      `cmd:"" help:"Look at channels, pause and resume them."`
	Token        tokenCmd        `cmd:"" help:"Bootstrap tokens, with which hosts enrol."`
	Revoke       revokeCmd       `cmd:"" help:"Refuse what a host was given, or its key for good."`
	Operator     operatorCmd     `cmd:"" help:"Operators' certificates."`
	Key          keyCmd          `cmd:"" help:"Look at keys."`
	Verify       verifyCmd       `cmd:"" help:"Verify signed documents and evidence offline."`
	Evidence     evidenceCmd     `cmd:"" help:"Hosts' signed records: export and verify them."`
	Canonicalize canonicalizeCmd `cmd:"" help:"Read a JSON document, write the bytes that nixfleet signs."`
	Version      versionCmd      `cmd:"" help:"Show the version."`

	DemoService  demoServiceCmd  `cmd:"" hidden:"" help:"A service of a demo's machine."`
	DemoServices demoServicesCmd `cmd:"" hidden:"" help:"Start the services of a demo's machine."`
	DemoReaper   demoReaperCmd   `cmd:"" hidden:"" help:"What ends the processes of a demo."`
}

// env is what a verb may use of the process it runs in.
type env struct {
	ctx    context.Context
	in     io.Reader
	out    io.Writer
	err    io.Writer
	styles styles
}

func main() {
	// The first signal asks every verb to end; a second one, with the handler
	// gone, ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	var c cli
	parser, err := kong.New(&c,
		kong.Name("nixfleet"),
		kong.Description("Keeps a fleet of NixOS and nix-darwin machines on the systems that its owner signed.\n\nExit codes: 0 it is as asked, 1 it is not, 2 wrong use, 3 the time ran out."),
		kong.Writers(out, errOut),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // a mistake in the struct tags above
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(errOut, "nixfleet: %v (nixfleet --help shows what there is)\n", err)
		return exitUse
	}
	err = kctx.Run(&env{ctx: ctx, in: in, out: out, err: errOut, styles: newStyles(out)})
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(errOut, "nixfleet: %s\n", text)
	}
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitNo
}

// codedError is an error with an exit code other than 1, or without a message
// because the verb has said all on its standard output.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

// wrongUse is an error in how the program was called.
func wrongUse(format string, args ...any) error {
	return &codedError{code: exitUse, err: fmt.Errorf(format, args...)}
}

// silently ends the program with a code when everything has been said.
func silently(code int) error { return &codedError{code: code} }
