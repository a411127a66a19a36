package main

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
)

type initCmd struct {
	Dir      string   `arg:"" help:"The folder to make; it must be empty or absent."`
	URL      string   `default:"https://localhost:8443" placeholder:"URL" help:"How hosts and operators will reach the control plane (default: ${default})."`
	Name     []string `placeholder:"NAME" help:"More DNS names or addresses of the control plane."`
	Operator string   `default:"operator" placeholder:"NAME" help:"Your name as an operator (default: ${default})."`
}

func (c *initCmd) Run(e *env) error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return wrongUse("--url %q: it must be like https://fleet.example.org:8443", c.URL)
	}
	if err := identity.CheckOperatorName(c.Operator); err != nil {
		return wrongUse("--operator: %w", err)
	}
	names := append([]string{u.Hostname()}, c.Name...)
	if isLoopback(u.Hostname()) {
		names = append(names, "localhost", "127.0.0.1", "::1")
	}
	folder, err := fleetdir.Create(c.Dir, fleetdir.Options{Names: names, URL: strings.TrimRight(c.URL, "/"), Operator: c.Operator, Now: time.Now()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "made %s; %s says what to do next\n", c.Dir, folder.Readme())
	return err
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
