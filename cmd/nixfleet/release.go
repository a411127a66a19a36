package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"nixfleet/internal/fleet"
	"nixfleet/internal/release"
	"nixfleet/internal/trust"
)

type releaseCmd struct {
	Fleet       string   `placeholder:"FILE" xor:"what" required:"" help:"The fleet document, with the closureHash of every host that has a system."`
	Resign      bool     `xor:"what" required:"" help:"Sign again what is published, without a new plan: keeps it fresh."`
	Out         string   `default:"release" placeholder:"DIR" help:"The folder to publish in (default: ${default})."`
	SignKey     string   `xor:"sign" required:"" placeholder:"FILE" help:"The CI release key: PEM, OpenSSH or raw."`
	SignCmd     string   `xor:"sign" required:"" placeholder:"COMMAND" help:"Signs the file NIXFLEET_INPUT into the file NIXFLEET_OUTPUT, 64 raw bytes."`
	TrustFile   string   `placeholder:"FILE" help:"Trust roots that the signatures must verify with (default: trust.json beside the fleet document, if there is one)."`
	PushCmd     string   `placeholder:"COMMAND" help:"Run for each host's closure before anything is signed, with NIXFLEET_HOST, NIXFLEET_PATH and NIXFLEET_CLOSURE_HASH."`
	Ref         string   `placeholder:"HEX" help:"The rollouts' reference (default: git HEAD of the fleet document's folder; without git the beginning of the plan's hash)."`
	Again       []string `placeholder:"CHANNEL" help:"Make the next attempt of this channel's rollout."`
	Revocations string   `placeholder:"FILE" help:"Revocations to publish (default: revocations.json beside the fleet document)."`
	Nonces      string   `placeholder:"FILE" help:"Bootstrap tokens to allow (default: bootstrap-nonces.json beside the fleet document)."`
	JSON        bool     `help:"As a JSON object."`
}

// Help is shown by --help.
func (c *releaseCmd) Help() string {
	return "Checks the fleet, freezes each channel's plan into a manifest, signs everything with one date, verifies it with the public key and publishes it: each document with its signature at once, the fleet document last."
}

func (c *releaseCmd) Run(e *env) error {
	request, err := c.request(e.ctx)
	if err != nil {
		return err
	}
	publisher, err := c.publisher()
	if err != nil {
		return err
	}
	if c.PushCmd != "" && request.Fleet != nil {
		if err := c.push(e, request.Fleet); err != nil {
			return err
		}
	}
	result, err := publisher.Release(e.ctx, request)
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if c.JSON {
		return writeJSON(e.out, result)
	}
	for _, w := range result.Warnings {
		fmt.Fprintf(e.err, "%s %s\n", e.styles.busy.Render("warning:"), w)
	}
	for _, r := range result.Rollouts {
		what := "signed again"
		if r.New {
			what = "new"
		}
		fmt.Fprintf(e.out, "%s: %d hosts, %s\n", r.ID, r.Hosts, what)
	}
	fmt.Fprintf(e.out, "published in %s, signed at %s\n", c.Out, result.SignedAt.Format(time.RFC3339))
	return nil
}

// request reads what is to be released.
func (c *releaseCmd) request(ctx context.Context) (release.Request, error) {
	r := release.Request{Again: c.Again, Ref: c.Ref, Now: time.Now()}
	if c.Ref != "" {
		if _, _, _, err := fleet.ParseRolloutID("channel@" + c.Ref); err != nil {
			return r, wrongUse("--ref %q: it may hold only 0-9 and a-f", c.Ref)
		}
	}
	if c.Resign {
		for _, flag := range []struct{ name, value string }{{"--ref", c.Ref}, {"--push-cmd", c.PushCmd}} {
			if flag.value != "" {
				return r, wrongUse("%s goes with --fleet, not with --resign", flag.name)
			}
		}
	}
	var err error
	if c.Fleet != "" {
		if r.Fleet, err = os.ReadFile(c.Fleet); err != nil {
			return r, wrongUse("--fleet: %w", err)
		}
		r.Commit = gitHead(ctx, filepath.Dir(c.Fleet))
		if r.Ref == "" {
			r.Ref = r.Commit
		}
	}
	if r.Revocations, err = c.list(c.Revocations, release.RevocationsName); err != nil {
		return r, err
	}
	r.Nonces, err = c.list(c.Nonces, release.NoncesName)
	return r, err
}

// list reads a list that was named, or one that lies beside the fleet document.
func (c *releaseCmd) list(named, usual string) ([]byte, error) {
	if named != "" {
		doc, err := os.ReadFile(named)
		if err != nil {
			return nil, wrongUse("%w", err)
		}
		return doc, nil
	}
	if c.Fleet == "" {
		return nil, nil
	}
	doc, err := os.ReadFile(filepath.Join(filepath.Dir(c.Fleet), usual))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return doc, nil
}

// publisher is who signs, and with what it must verify.
func (c *releaseCmd) publisher() (release.Publisher, error) {
	p := release.Publisher{Folder: c.Out}
	if c.SignKey != "" {
		signer, err := loadSigner("--sign-key", c.SignKey)
		if err != nil {
			return p, err
		}
		public := signer.Public()
		p.Signer = release.KeySigner{Signer: signer}
		p.Slot, p.Algorithm = trust.Slot{Current: &public}, public.Algorithm
	} else {
		p.Signer = release.CommandSigner(c.SignCmd)
	}
	file := c.TrustFile
	if file == "" && c.Fleet != "" {
		beside := filepath.Join(filepath.Dir(c.Fleet), "trust.json")
		if _, err := os.Stat(beside); err == nil {
			file = beside
		}
	}
	switch {
	case file != "":
		roots, err := trust.LoadRoots(file)
		if err != nil {
			return p, wrongUse("%w", err)
		}
		p.Slot = roots.CIReleaseKey
		if p.Algorithm == "" && p.Slot.Current != nil {
			p.Algorithm = p.Slot.Current.Algorithm
		}
	case c.SignCmd != "":
		return p, wrongUse("--sign-cmd needs --trust-file: what a command signed is verified before it is published")
	}
	return p, nil
}

// push has every host's closure pushed to the binary cache.
func (c *releaseCmd) push(e *env, doc []byte) error {
	f := &fleet.Fleet{}
	if err := json.Unmarshal(doc, f); err != nil {
		return fmt.Errorf("fleet document: %w", err)
	}
	if err := f.Validate(); err != nil {
		return fmt.Errorf("fleet document:\n%w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Hosts)) {
		closure := f.Hosts[name].ClosureHash
		if closure == nil {
			continue
		}
		fmt.Fprintf(e.err, "pushing %s of %s\n", short(*closure), name)
		err := release.Hook(e.ctx, c.PushCmd,
			"NIXFLEET_HOST="+name, "NIXFLEET_PATH="+closure.Path(), "NIXFLEET_CLOSURE_HASH="+string(*closure))
		if err != nil {
			return fmt.Errorf("push the closure of %s, nothing was published: %w", name, err)
		}
	}
	return nil
}

// gitHead is the commit that is checked out in dir; "" without git.
func gitHead(ctx context.Context, dir string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-parse", "--verify", "--quiet", "HEAD").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
