// Nixfleet-control-plane passes a fleet's signed documents and orders to its
// hosts, mirrors what they report, and issues their certificates.
//
// Exit codes: 0 it ended as asked, 1 it could not do its work, 2 wrong use, 3 the
// database was written by a newer program.
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

	"nixfleet/internal/controlplane"
	"nixfleet/internal/controlplane/store"
)

const (
	exitOK    = 0
	exitNo    = 1
	exitUse   = 2
	exitNewer = 3
)

// cli is every verb. Each has a file of its own.
type cli struct {
	Serve   serveCmd   `cmd:"" default:"withargs" help:"Run the control plane. This is what is done without a verb."`
	Check   checkCmd   `cmd:"" help:"Look at settings, files and the database, and start nothing."`
	Rebuild rebuildCmd `cmd:"" help:"Make the derived part of the database anew from its log. No control plane may be running on it."`
	Version versionCmd `cmd:"" help:"Show the version."`
}

// env is what a verb may use of the process it runs in.
type env struct {
	ctx context.Context
	out io.Writer
	err io.Writer
}

func main() {
	// The first signal asks it to end; a second one, with the handler gone, ends
	// the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	var c cli
	code := -1 // of a help that was asked for
	parser, err := kong.New(&c,
		kong.Name("nixfleet-control-plane"),
		kong.Description("Passes a fleet's signed documents and orders to its hosts. Every flag can be set as NIXFLEET_CONTROL_PLANE_<FLAG>."),
		kong.Writers(out, errOut),
		kong.Exit(func(status int) { code = status }),
		kong.DefaultEnvars("NIXFLEET_CONTROL_PLANE"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // a mistake in the struct tags
	}
	kctx, err := parser.Parse(args)
	if code >= 0 {
		return code
	}
	if err != nil {
		fmt.Fprintf(errOut, "nixfleet-control-plane: %v\n", err)
		return exitUse
	}
	err = kctx.Run(&env{ctx: ctx, out: out, err: errOut})
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(errOut, "nixfleet-control-plane: %v\n", err)
	var setting *controlplane.ConfigError
	switch {
	case errors.As(err, &setting):
		return exitUse
	case errors.Is(err, store.ErrNewerSchema):
		return exitNewer
	}
	return exitNo
}
