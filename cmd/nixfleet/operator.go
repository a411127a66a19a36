package main

import (
	"fmt"
	"time"

	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
)

type operatorCmd struct {
	Mint operatorMintCmd `cmd:"" help:"Issue a certificate to an operator."`
}

type operatorMintCmd struct {
	Name     string        `arg:"" help:"The operator's name, as it will stand in the audit log."`
	CACert   string        `required:"" placeholder:"FILE" help:"The authority's certificate."`
	CAKey    string        `required:"" placeholder:"FILE" help:"The authority's key."`
	Validity time.Duration `default:"8760h" help:"How long it is valid (default: a year)."`
	OutCert  string        `placeholder:"FILE" help:"Where to write the certificate (default: NAME.pem)."`
	OutKey   string        `placeholder:"FILE" help:"Where to write its key (default: NAME.key)."`
}

func (c *operatorMintCmd) Run(e *env) error {
	if err := identity.CheckOperatorName(c.Name); err != nil {
		return wrongUse("%w", err)
	}
	certFile, keyFile := c.OutCert, c.OutKey
	if certFile == "" {
		certFile = c.Name + ".pem"
	}
	if keyFile == "" {
		keyFile = c.Name + ".key"
	}
	ca, err := loadCA(c.CACert, c.CAKey)
	if err != nil {
		return wrongUse("%w", err)
	}
	template, err := identity.OperatorTemplate(c.Name, time.Now(), c.Validity)
	if err != nil {
		return wrongUse("%w", err)
	}
	if err := fleetdir.Issue(ca, template, certFile, keyFile); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "wrote %s and %s; nixfleet --client-cert %s --client-key %s … uses them\n", certFile, keyFile, certFile, keyFile)
	return err
}

func loadCA(certFile, keyFile string) (identity.CA, error) {
	certPem, err := readKeyFile("--ca-cert", certFile)
	if err != nil {
		return identity.CA{}, err
	}
	keyPem, err := readKeyFile("--ca-key", keyFile)
	if err != nil {
		return identity.CA{}, err
	}
	key, err := identity.ParseKey(keyPem)
	if err != nil {
		return identity.CA{}, fmt.Errorf("--ca-key %s: %w", keyFile, err)
	}
	ca, err := identity.LoadCA(certPem, key)
	if err != nil {
		return identity.CA{}, fmt.Errorf("--ca-cert %s: %w", certFile, err)
	}
	return ca, nil
}
