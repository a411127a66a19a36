package main

import (
	"encoding/json"
	"fmt"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/release"
	"nixfleet/internal/trust"
)

type revokeCmd struct {
	Host        string    `arg:"" help:"The host's machine id."`
	Reason      string    `required:"" aliases:"why" placeholder:"TEXT" help:"The reason, kept in the list."`
	Key         string    `placeholder:"FILE" help:"The host's public key, to be refused for good, whatever it is used for."`
	NotBefore   time.Time `placeholder:"TIME" help:"Refuse what the host was given before this time, RFC 3339 (default: now)."`
	By          string    `env:"USER" placeholder:"NAME" help:"Who revokes (default: your user name)."`
	Revocations string    `default:"revocations.json" placeholder:"FILE" help:"The list, which is made if it is not there (default: ${default})."`
	SignKey     string    `default:"keys/ci.key" placeholder:"FILE" help:"The CI release key: PEM, OpenSSH or raw (default: ${default})."`
	SignCmd     string    `placeholder:"COMMAND" help:"Signs in place of --sign-key: the file NIXFLEET_INPUT into the file NIXFLEET_OUTPUT, 64 raw bytes."`
	TrustFile   string    `placeholder:"FILE" help:"Trust roots that the signature must verify with (default: trust.json beside the list, if there is one)."`
	JSON        bool      `help:"Write the new entry as a JSON object."`
}

// Help is shown by --help.
func (c *revokeCmd) Help() string {
	return "Adds an entry to the list of revocations and signs the list; earlier entries stay. It has its effect when the control plane has the list: publish it with nixfleet release, or put FILE.sig and then FILE where it takes its documents from. Without --key the host's machine may enrol again with a new token; with it that key is refused for good."
}

func (c *revokeCmd) Run(e *env) error {
	if err := identity.CheckHostName(c.Host); err != nil {
		return wrongUse("%w", err)
	}
	now := time.Now().UTC()
	entry := fleet.Revocation{Hostname: c.Host, NotBefore: c.NotBefore.UTC(), Reason: c.Reason, RevokedBy: c.By}
	if c.NotBefore.IsZero() {
		// Certificates say the second in which they began: none of this one is left out.
		entry.NotBefore = now.Truncate(time.Second).Add(time.Second)
	}
	if c.Key != "" {
		public, err := loadHostKey("--key", c.Key)
		if err != nil {
			return err
		}
		entry.KeyFingerprint = identity.Fingerprint(public)
	}
	publisher, err := c.publisher(now)
	if err != nil {
		return err
	}
	unlock, err := lockList(c.Revocations)
	if err != nil {
		return err
	}
	defer unlock()
	text, err := amendList(c.Revocations, "revocations", func(entries []json.RawMessage) ([]json.RawMessage, error) {
		raw, err := json.Marshal(entry)
		return append(entries, raw), err
	})
	if err != nil {
		return err
	}
	if err := publisher.Revocations(e.ctx, c.Revocations, text, now); err != nil {
		return err
	}
	fmt.Fprintf(e.err, "%s and %s.sig hold it; publish it with nixfleet release\n", c.Revocations, c.Revocations)
	if c.JSON {
		return writeJSON(e.out, entry)
	}
	what := fmt.Sprintf("what %s was given before %s is refused", c.Host, entry.NotBefore.Format(time.RFC3339))
	if entry.KeyFingerprint != "" {
		what += ", and for good its key " + entry.KeyFingerprint
	}
	_, err = fmt.Fprintln(e.out, what+", once the list is published")
	return err
}

// publisher is who signs the list, and with what it must verify.
func (c *revokeCmd) publisher(now time.Time) (release.Publisher, error) {
	roots, rootsFile, err := rootsBeside(c.TrustFile, c.Revocations)
	if err != nil {
		return release.Publisher{}, err
	}
	p := release.Publisher{Signer: release.CommandSigner(c.SignCmd)}
	if roots != nil {
		p.Slot = roots.CIReleaseKey
	}
	if c.SignCmd != "" {
		if roots == nil {
			return p, wrongUse("--sign-cmd needs --trust-file: what a command signed is verified before it is written")
		}
		if p.Slot.Current != nil {
			p.Algorithm = p.Slot.Current.Algorithm
		}
		return p, nil
	}
	signer, err := loadSigner("--sign-key", c.SignKey)
	if err != nil {
		return p, err
	}
	public := signer.Public()
	if roots == nil {
		p.Slot = trust.Slot{Current: &public}
	} else if err := checkPinned("--sign-key", c.SignKey, "ciReleaseKey", rootsFile, &p.Slot, public, now); err != nil {
		return p, err
	}
	p.Signer, p.Algorithm = release.KeySigner{Signer: signer}, public.Algorithm
	return p, nil
}
