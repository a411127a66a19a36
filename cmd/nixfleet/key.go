package main

import (
	"encoding/base64"
	"fmt"

	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
)

type keyCmd struct {
	Show keyShowCmd `cmd:"" help:"Show the public half of a key, as trust.json and the fleet document want it."`
}

type keyShowCmd struct {
	File string `arg:"" help:"A private key (PEM, OpenSSH, raw), or a public one (PEM, a line of OpenSSH)."`
	JSON bool   `help:"As a JSON object."`
}

// shownKey is a key in all the forms in which it stands in documents.
type shownKey struct {
	Algorithm   string `json:"algorithm"`
	Public      string `json:"public"`                // of trust.json
	SSH         string `json:"ssh,omitempty"`         // of the fleet document
	Fingerprint string `json:"fingerprint,omitempty"` // of tokens and revocations
}

func (c *keyShowCmd) Run(e *env) error {
	content, err := readKeyFile("key", c.File)
	if err != nil {
		return err
	}
	key, err := publicKey(content)
	if err != nil {
		return wrongUse("key %s: %w", c.File, err)
	}
	shown := shownKey{Algorithm: key.Algorithm, Public: base64.StdEncoding.EncodeToString(key.Public)}
	if key.Algorithm == trust.Ed25519 {
		shown.SSH = identity.FormatPublicKey(key.Public, "")
		shown.Fingerprint = identity.Fingerprint(key.Public)
	}
	if c.JSON {
		return writeJSON(e.out, shown)
	}
	f := fields{{"algorithm", shown.Algorithm}, {"trust.json", fmt.Sprintf(`{"algorithm": %q, "public": %q}`, shown.Algorithm, shown.Public)}}
	f.add("ssh", shown.SSH)
	f.add("fingerprint", shown.Fingerprint)
	f.write(e.out, e.styles)
	return nil
}

// publicKey reads a public key, or the public half of a private one.
func publicKey(content []byte) (trust.Key, error) {
	if public, err := trust.ParsePublic(content); err == nil {
		return public, nil
	}
	signer, err := trust.LoadSigner(content)
	if err != nil {
		return trust.Key{}, err
	}
	return signer.Public(), nil
}
