package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"nixfleet/internal/durable"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
)

type tokenCmd struct {
	Mint tokenMintCmd `cmd:"" help:"Make a bootstrap token for a host, and allow it."`
}

type tokenMintCmd struct {
	Host    string        `arg:"" help:"The host's machine id."`
	SSHKey  string        `required:"" placeholder:"FILE" help:"The host's public key, ssh_host_ed25519_key.pub."`
	SignKey string        `required:"" placeholder:"FILE" help:"The organisation's root key."`
	Nonces  string        `default:"bootstrap-nonces.json" placeholder:"FILE" help:"The list of allowed tokens, to which this one is added (default: ${default})."`
	TTL     time.Duration `name:"ttl" default:"24h" help:"How long the token is good (default: ${default})."`
	Out     string        `placeholder:"FILE" help:"Where to write the token, readable by you only (default: standard output)."`
	JSON    bool          `help:"Write an object with the token and its entry in the list."`
}

// Help is shown by --help.
func (c *tokenMintCmd) Help() string {
	return "The token works once the list of allowed tokens is published: run nixfleet release afterwards."
}

func (c *tokenMintCmd) Run(e *env) error {
	if err := identity.CheckHostName(c.Host); err != nil {
		return wrongUse("%w", err)
	}
	if c.TTL < time.Minute {
		return wrongUse("--ttl %s: at least a minute is needed", c.TTL)
	}
	line, err := os.ReadFile(c.SSHKey)
	if err != nil {
		return wrongUse("--ssh-key: %w", err)
	}
	public, err := identity.ParsePublicKey(string(line))
	if err != nil {
		return wrongUse("--ssh-key %s: %w", c.SSHKey, err)
	}
	signer, err := loadSigner(c.SignKey)
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	claims := identity.Claims{
		Hostname:                  c.Host,
		ExpectedPubkeyFingerprint: identity.Fingerprint(public),
		IssuedAt:                  now,
		ExpiresAt:                 now.Add(c.TTL),
		Nonce:                     identity.NewNonce(),
	}
	token, err := identity.MintToken(claims, signer)
	if err != nil {
		return err
	}
	entry := fleet.Nonce{Nonce: claims.Nonce, Hostname: claims.Hostname, ExpiresAt: claims.ExpiresAt}
	if err := allow(c.Nonces, entry, now); err != nil {
		return fmt.Errorf("%s: %w", c.Nonces, err)
	}
	if c.Out != "" {
		if err := os.WriteFile(c.Out, append(token, '\n'), 0o600); err != nil {
			return err
		}
	}
	fmt.Fprintf(e.err, "%s allows it; publish it with nixfleet release before the host starts\n", c.Nonces)
	switch {
	case c.JSON:
		return writeJSON(e.out, struct {
			Token json.RawMessage `json:"token"`
			Entry fleet.Nonce     `json:"entry"`
		}{token, entry})
	case c.Out == "":
		_, err = fmt.Fprintf(e.out, "%s\n", token)
	}
	return err
}

// allow adds an entry to the list of allowed tokens, which is signed at the next
// release, and drops those that have expired. What else is in the file stays.
func allow(path string, entry fleet.Nonce, now time.Time) error {
	doc := map[string]json.RawMessage{"schemaVersion": json.RawMessage("1")}
	var nonces []fleet.Nonce
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(raw, &doc); err != nil {
			return err
		}
		if list, ok := doc["nonces"]; ok {
			if err := json.Unmarshal(list, &nonces); err != nil {
				return fmt.Errorf("nonces: %w", err)
			}
		}
	}
	kept := []fleet.Nonce{}
	for _, n := range nonces {
		if n.ExpiresAt.After(now) {
			kept = append(kept, n)
		}
	}
	if doc["nonces"], err = json.Marshal(append(kept, entry)); err != nil {
		return err
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(text, '\n'), 0o644)
}
