package demo

import (
	"context"
	"fmt"
	"strings"

	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

// startControlPlane starts the control plane and waits until it answers.
func (w *world) startControlPlane(ctx context.Context) error {
	w.controlPlane = w.supervisor.run("control-plane", w.in("control-plane.log"),
		w.programs.ControlPlane,
		"--listen="+strings.TrimPrefix(w.url, "https://"),
		"--tls-cert="+w.keys.ServerCert(),
		"--tls-key="+w.keys.ServerKey(),
		"--client-ca="+w.keys.CACert(),
		"--ca-cert="+w.keys.CACert(),
		"--ca-key="+w.keys.CAKey(),
		"--trust-file="+w.keys.Trust(),
		"--release-source="+w.keys.Release(),
		"--source-interval=200ms",
		"--heartbeat="+heartbeat.String(),
		"--db=sqlite:"+w.in("state.db"),
		"--log-format=json",
	)
	var err error
	w.operator, err = operator.New(operator.Config{URL: w.url, CACert: w.keys.CACert(), ClientCert: w.keys.OperatorCert(), ClientKey: w.keys.OperatorKey()})
	if err != nil {
		return err
	}
	up := false
	err = w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
		_, err := operator.Get[wire.Whoami](ctx, w.operator, wire.PathWhoami)
		up = err == nil
		return up, err
	})
	if err == nil && !up {
		err = fmt.Errorf("the control plane does not answer; it said:\n%s", tail(w.controlPlane.log))
	}
	return err
}

// startAgents starts every agent for the first time, once the control plane has
// the release, and with it the list of allowed tokens.
func (w *world) startAgents(ctx context.Context, id string) error {
	err := w.until(ctx, settleLimit, func(ctx context.Context) (bool, error) {
		_, err := operator.Get[wire.RolloutLifecycle](ctx, w.operator, wire.Fill(wire.PathRolloutLifecycle, id))
		return err == nil, err
	})
	if err != nil {
		return err
	}
	w.agents = map[string]*daemon{}
	for _, m := range w.machines {
		argv := []string{
			w.programs.Agent,
			"--control-plane-url=https://" + m.uplinks[toControlPlane],
			"--machine-id=" + m.name,
			"--poll-interval=" + heartbeat.String(),
			"--trust-file=" + m.in(trustFile),
			"--ca-cert=" + w.keys.CACert(),
			"--bootstrap-token-file=" + m.in(tokenFile),
			"--state-dir=" + m.in(stateDir),
			"--ssh-host-key-file=" + m.in(hostKeyFile),
			"--health-checks-config=" + m.in(healthChecksFile),
			"--clock-policy=trust",
			"--min-free-nix=1MiB",
			"--min-free-boot=1MiB",
			"--cache-url=http://" + m.uplinks[toCache],
			"--log-format=json",
			"--host-backend=dirhost:" + m.root,
		}
		// The address of a Unix socket is short; a deep folder has no room for one.
		if socket := m.in(socketFile); len(socket) <= 100 {
			argv = append(argv, "--socket="+socket)
		} else {
			argv = append(argv, "--socket=")
		}
		w.agents[m.name] = w.supervisor.run(m.name, m.in(agentLog), argv...)
	}
	return nil
}
