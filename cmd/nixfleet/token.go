package main

import (
	"encoding/json"
	"fmt"
	"time"

	"nixfleet/internal/durable"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
)

type tokenCmd struct {
	Mint tokenMintCmd `cmd:"" help:"Make a bootstrap token for a host, and allow it."`
}

// minting is what making a token needs.
type minting struct {
	Host      string        `arg:"" help:"The host's machine id."`
	SSHKey    string        `required:"" placeholder:"FILE" help:"The host's public key, ssh_host_ed25519_key.pub."`
	SignKey   string        `default:"keys/org-root.key" placeholder:"FILE" help:"The organisation's root key: PEM, OpenSSH or raw (default: ${default})."`
	Nonces    string        `default:"bootstrap-nonces.json" placeholder:"FILE" help:"The list of allowed tokens, to which this one is added (default: ${default})."`
	TrustFile string        `placeholder:"FILE" help:"Trust roots that must pin the root key (default: trust.json beside the list, if there is one)."`
	TTL       time.Duration `name:"ttl" default:"24h" help:"How long the token is good (default: ${default})."`
	Out       string        `placeholder:"FILE" help:"Where to write the token, readable by you only (default: standard output)."`
}

// minted is a new token with what it stands for.
type minted struct {
	token  json.RawMessage
	entry  fleet.Nonce // of the list of allowed tokens
	pubkey string      // the host's, as the fleet document has it
}

// mint makes a token and allows it.
func (c *minting) mint(e *env) (minted, error) {
	if err := identity.CheckHostName(c.Host); err != nil {
		return minted{}, wrongUse("%w", err)
	}
	if c.TTL < time.Minute {
		return minted{}, wrongUse("--ttl %s: at least a minute is needed", c.TTL)
	}
	public, err := loadHostKey("--ssh-key", c.SSHKey)
	if err != nil {
		return minted{}, err
	}
	signer, err := loadSigner("--sign-key", c.SignKey)
	if err != nil {
		return minted{}, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	roots, rootsFile, err := rootsBeside(c.TrustFile, c.Nonces)
	if err != nil {
		return minted{}, err
	}
	if roots != nil {
		if err := checkPinned("--sign-key", c.SignKey, "orgRootKey", rootsFile, roots.OrgRootKey, signer.Public(), now); err != nil {
			return minted{}, err
		}
	}
	claims := identity.Claims{
		Hostname:                  c.Host,
		ExpectedPubkeyFingerprint: identity.Fingerprint(public),
		IssuedAt:                  now,
		ExpiresAt:                 now.Add(c.TTL),
		Nonce:                     identity.NewNonce(),
	}
	token, err := identity.MintToken(claims, signer)
	if err != nil {
		return minted{}, wrongUse("--sign-key %s: %w", c.SignKey, err)
	}
	m := minted{
		token:  token,
		entry:  fleet.Nonce{Nonce: claims.Nonce, Hostname: claims.Hostname, ExpiresAt: claims.ExpiresAt},
		pubkey: identity.FormatPublicKey(public, c.Host),
	}
	if err := allow(c.Nonces, m.entry, now); err != nil {
		return minted{}, err
	}
	if c.Out != "" {
		if err := durable.WriteFile(c.Out, append(token, '\n'), 0o600); err != nil {
			return minted{}, err
		}
	}
	fmt.Fprintf(e.err, "%s allows it; publish it with nixfleet release before the host starts\n", c.Nonces)
	return m, nil
}

type tokenMintCmd struct {
	minting
	JSON bool `help:"Write an object with the token and its entry in the list."`
}

// Help is shown by --help.
func (c *tokenMintCmd) Help() string {
	return "The token works once the list of allowed tokens is published: run nixfleet release afterwards."
}

func (c *tokenMintCmd) Run(e *env) error {
	m, err := c.mint(e)
	if err != nil {
		return err
	}
	switch {
	case c.JSON:
		return writeJSON(e.out, struct {
			Token json.RawMessage `json:"token"`
			Entry fleet.Nonce     `json:"entry"`
		}{m.token, m.entry})
	case c.Out == "":
		_, err = fmt.Fprintf(e.out, "%s\n", m.token)
	}
	return err
}

// allow adds an entry to the list of allowed tokens, which is signed at the next
// release, and drops those that have expired.
func allow(path string, entry fleet.Nonce, now time.Time) error {
	unlock, err := lockList(path)
	if err != nil {
		return err
	}
	defer unlock()
	text, err := amendList(path, "nonces", func(entries []json.RawMessage) ([]json.RawMessage, error) {
		kept := []json.RawMessage{}
		for _, raw := range entries {
			var n fleet.Nonce
			if err := json.Unmarshal(raw, &n); err != nil {
				return nil, err
			}
			if n.ExpiresAt.After(now) {
				kept = append(kept, raw)
			}
		}
		raw, err := json.Marshal(entry)
		return append(kept, raw), err
	})
	if err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o644)
}
