package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"nixfleet/internal/agent"
	"nixfleet/internal/fleet"
)

// unquarantineCmd lets closures be tried again that failed on this host.
type unquarantineCmd struct {
	Closure closure `arg:"" optional:"" help:"The closure, as a store path or its last part; all of them when it is left out."`
	Socket  string  `default:"/run/nixfleet-agent/agent.sock" placeholder:"FILE" help:"The agent's socket."`
}

func (c *unquarantineCmd) Run(e *env) error {
	body, err := json.Marshal(agent.UnquarantineRequest{Closure: fleet.Closure(c.Closure)})
	if err != nil {
		return err
	}
	raw, err := ask(e.ctx, c.Socket, http.MethodPost, agent.SocketUnquarantine, body)
	if err != nil {
		return err
	}
	var answer agent.UnquarantineResponse
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	if len(answer.Lifted) == 0 {
		fmt.Fprintln(e.out, "nothing is in quarantine here")
	}
	for _, q := range answer.Lifted {
		fmt.Fprintf(e.out, "%s may be tried again; it failed in %s (%s)\n", q.Closure, q.Rollout, q.Why)
	}
	return nil
}

// closure is a system closure, given as people copy it.
type closure fleet.Closure

func (c *closure) UnmarshalText(text []byte) error {
	parsed, err := fleet.ParseClosure(string(text))
	if err != nil {
		return fmt.Errorf("%q is not allowed: want a closure such as %s/<hash>-<name>, or <hash>-<name>", text, fleet.StoreDir)
	}
	*c = closure(parsed)
	return nil
}
