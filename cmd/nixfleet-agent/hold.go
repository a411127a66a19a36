package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"nixfleet/internal/agent"
)

// holdCmd keeps new targets away from this host for a while.
type holdCmd struct {
	Reason string  `required:"" placeholder:"TEXT" help:"Why, for whoever wonders that this host falls behind."`
	For    seconds `default:"2h" placeholder:"TIME" help:"When it ends by itself; 30 days at most."`
	Socket string  `default:"/run/nixfleet-agent/agent.sock" placeholder:"FILE" help:"The agent's socket."`
}

func (c *holdCmd) Run(e *env) error {
	if time.Duration(c.For) < time.Second {
		return &wrongUse{fmt.Errorf("--for: %s is not allowed: want at least 1s", time.Duration(c.For))}
	}
	body, err := json.Marshal(agent.HoldRequest{Reason: c.Reason, Secs: int64(time.Duration(c.For) / time.Second)})
	if err != nil {
		return err
	}
	raw, err := ask(e.ctx, c.Socket, http.MethodPost, agent.SocketHold, body)
	if err != nil {
		return err
	}
	var answer agent.HoldResponse
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	fmt.Fprintf(e.out, "no new targets are taken until %s, or until `nixfleet-agent release`\n", moment(answer.Hold.Until))
	if answer.Rollout != "" {
		fmt.Fprintf(e.out, "%s is under way (%s) and goes on\n", answer.Rollout, answer.State)
	}
	return nil
}

// releaseCmd ends a hold.
type releaseCmd struct {
	Socket string `default:"/run/nixfleet-agent/agent.sock" placeholder:"FILE" help:"The agent's socket."`
}

func (c *releaseCmd) Run(e *env) error {
	raw, err := ask(e.ctx, c.Socket, http.MethodPost, agent.SocketRelease, []byte("{}"))
	if err != nil {
		return err
	}
	var answer agent.ReleaseResponse
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	if answer.Released == nil {
		fmt.Fprintln(e.out, "nothing is held here")
		return nil
	}
	fmt.Fprintf(e.out, "new targets are taken again; they were held since %s: %s\n", moment(answer.Released.Since), answer.Released.Reason)
	return nil
}
