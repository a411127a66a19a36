package main

import (
	"fmt"
	"io"

	"nixfleet/internal/trust"
)

type canonicalizeCmd struct {
	AnyNumber bool `help:"Also take numbers that nixfleet's documents may not hold: fractions, exponents, beyond ±(2⁵³−1)."`
}

// Help is shown by --help.
func (c *canonicalizeCmd) Help() string {
	return "Reads one JSON document from standard input and writes its RFC 8785 form, without a newline, to standard output: the bytes that nixfleet signs. Exits 1 with the reason for what is no such document."
}

func (c *canonicalizeCmd) Run(e *env) error {
	doc, err := io.ReadAll(e.in)
	if err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	canonicalize := trust.Canonical
	if c.AnyNumber {
		canonicalize = trust.CanonicalAny
	}
	canonical, err := canonicalize(doc)
	if err != nil {
		return err
	}
	_, err = e.out.Write(canonical)
	return err
}
