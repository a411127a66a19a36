package main

import (
	"encoding/json"
	"fmt"

	"nixfleet/internal/fleet"
)

type hostAddCmd struct {
	minting
	System  string   `default:"x86_64-linux" help:"Its system (default: ${default})."`
	Channel string   `default:"stable" help:"Its channel (default: ${default})."`
	Tag     []string `placeholder:"TAG" help:"A tag; may be given again."`
	JSON    bool     `help:"As a JSON object."`
}

// Help is shown by --help.
func (c *hostAddCmd) Help() string {
	return "Makes a bootstrap token for the host, allows it, and prints all that belongs to it: its entry in the fleet document, which is yours to put there, its entry in the list of allowed tokens, which is added, and the token, which the host's agent gets with --bootstrap-token-file."
}

// addedHost is what adding a host comes to.
type addedHost struct {
	FleetEntry map[string]fleetEntry `json:"fleetEntry"` // of the fleet document's hosts
	AllowEntry fleet.Nonce           `json:"allowEntry"` // of the list of allowed tokens
	Token      json.RawMessage       `json:"token"`
}

// fleetEntry is a host of a fleet document as a person begins it.
type fleetEntry struct {
	System      string   `json:"system"`
	Tags        []string `json:"tags"`
	Channel     string   `json:"channel"`
	ClosureHash *string  `json:"closureHash"`
	Pubkey      string   `json:"pubkey"`
}

func (c *hostAddCmd) Run(e *env) error {
	m, err := c.mint(e)
	if err != nil {
		return err
	}
	added := addedHost{
		FleetEntry: map[string]fleetEntry{c.Host: {System: c.System, Tags: append([]string{}, c.Tag...), Channel: c.Channel, Pubkey: m.pubkey}},
		AllowEntry: m.entry,
		Token:      m.token,
	}
	if c.JSON {
		return writeJSON(e.out, added)
	}
	parts := []struct {
		title string
		value any
	}{
		{`To put into "hosts" of the fleet document:`, added.FleetEntry},
		{"Added to " + c.Nonces + ":", added.AllowEntry},
		{"The token, for the agent's --bootstrap-token-file:", added.Token},
	}
	if c.Out != "" {
		parts[2].title, parts[2].value = "The token is in "+c.Out+", for the agent's --bootstrap-token-file.", nil
	}
	for i, p := range parts {
		if i > 0 {
			fmt.Fprintln(e.out)
		}
		fmt.Fprintln(e.out, e.styles.bold.Render(p.title))
		if p.value == nil {
			continue
		}
		if err := writeJSON(e.out, p.value); err != nil {
			return err
		}
	}
	return nil
}
