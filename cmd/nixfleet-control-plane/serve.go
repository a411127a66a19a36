package main

import (
	"errors"
	"fmt"
	"net"

	"nixfleet/internal/controlplane"
)

// serveCmd is the daemon.
type serveCmd struct {
	settings      `embed:""`
	Listen        string `default:":8443" placeholder:"ADDRESS" help:"Where agents and operators connect."`
	MetricsListen string `placeholder:"ADDRESS" help:"Serve metrics and health here too, without TLS; :port is on loopback."`
}

func (c *serveCmd) Run(e *env) error {
	config := c.config(e)
	cp, err := controlplane.New(e.ctx, config)
	if err != nil {
		return err
	}
	listener, err := listen("listen", c.Listen)
	if err != nil {
		return errors.Join(err, cp.Close())
	}
	var local net.Listener
	if c.MetricsListen != "" {
		if local, err = listen("metrics-listen", onLoopback(c.MetricsListen)); err != nil {
			return errors.Join(err, listener.Close(), cp.Close())
		}
	}
	config.Log.Info("serving", "address", listener.Addr().String(), "version", config.Version)
	err = cp.Run(e.ctx, listener, local)
	config.Log.Info("stopped")
	return err
}

func listen(flag, address string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, &controlplane.ConfigError{Flag: flag, Value: address, Allowed: "HOST:PORT or :PORT is allowed"}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return l, nil
}

func onLoopback(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
