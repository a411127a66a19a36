package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// The enrolments that are measured: at a rate first, then as many as there can be.
const (
	enrolRate     = 100 // a second
	enrolSteady   = 8 * time.Second
	enrolFull     = 8 * time.Second
	enrolClients  = 32   // at once, when as many as can be
	enrolFullMost = 6000 // tokens that there are for it
)

// enrolments measures a control plane that hosts enrol at: a process of its own,
// and one client with its own address and connection for each host, on the same
// machine.
func enrolments(add func(Budget, float64)) error {
	dir, err := os.MkdirTemp("", "nixfleet-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "nixfleet-control-plane")
	if err := build(binary, "./cmd/nixfleet-control-plane"); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	folder, err := fleetdir.Create(filepath.Join(dir, "fleet"), fleetdir.Options{
		Names: []string{"127.0.0.1"}, URL: "https://" + address, Operator: "bench", Now: time.Now()})
	if err != nil {
		return err
	}
	steady := int(enrolSteady.Seconds() * enrolRate)
	tickets, err := invite(folder, steady+enrolFullMost)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stop, err := serveFleet(ctx, binary, dir, address, folder)
	if err != nil {
		return err
	}
	defer stop()

	roots, err := os.ReadFile(folder.CACert())
	if err != nil {
		return err
	}
	e := &entrance{address: address, roots: x509.NewCertPool()}
	e.roots.AppendCertsFromPEM(roots)
	took, err := e.atRate(ctx, tickets[:steady])
	if err != nil {
		return err
	}
	slices.Sort(took)
	add(budget(figureEnrol), float64(took[len(took)*99/100]))
	perSecond, err := e.asManyAsCanBe(ctx, tickets[steady:])
	if err != nil {
		return err
	}
	add(budget(figureEnrolMost), perSecond)
	return nil
}

// ticket is what a host enrols with.
type ticket struct {
	address net.IP
	body    []byte
}

// invite makes hosts, declares them, and mints a token for each, as an owner
// would. Each host has an address of its own.
func invite(folder fleetdir.Folder, n int) ([]ticket, error) {
	ci, err := signer(folder.CIKey())
	if err != nil {
		return nil, err
	}
	org, err := signer(folder.OrgRootKey())
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	meta := fleet.Meta{SchemaVersion: fleet.SchemaVersion, SignedAt: &now}
	doc := &fleet.Fleet{
		SchemaVersion: fleet.SchemaVersion, Meta: meta, Hosts: map[string]fleet.Host{},
		Channels: map[string]fleet.Channel{"stable": {
			RolloutPolicy: "all", ReconcileIntervalMinutes: 30, FreshnessWindow: 1440, SigningIntervalMinutes: 60,
			Compliance: fleet.Compliance{Frameworks: []string{}, Mode: "disabled"},
		}},
		RolloutPolicies: map[string]fleet.RolloutPolicy{"all": {
			Strategy: "all-at-once", Waves: []fleet.PolicyWave{{Selector: fleet.Selector{All: true}}}, Policy: fleet.DefaultPolicy(),
		}},
		Waves: map[string][]fleet.Wave{"stable": {{}}}, Edges: []fleet.Edge{}, ChannelEdges: []fleet.Edge{}, DisruptionBudgets: []fleet.Budget{},
	}
	nonces := fleet.Nonces{SchemaVersion: fleet.SchemaVersion, Nonces: []fleet.Nonce{}, Meta: meta}
	tickets := make([]ticket, n)
	for i := range n {
		name := fmt.Sprintf("host-%05d", i)
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		claims := identity.Claims{
			Hostname: name, ExpectedPubkeyFingerprint: identity.Fingerprint(public),
			IssuedAt: now, ExpiresAt: now.Add(time.Hour), Nonce: identity.NewNonce(),
		}
		token, err := identity.MintToken(claims, org)
		if err != nil {
			return nil, err
		}
		csr, err := identity.NewCSR(name, private)
		if err != nil {
			return nil, err
		}
		tickets[i].address = net.IPv4(127, 1, byte(i/250), byte(1+i%250))
		if tickets[i].body, err = json.Marshal(wire.EnrollRequest{Token: token, CSRPem: string(csr)}); err != nil {
			return nil, err
		}
		line := identity.FormatPublicKey(public, "")
		doc.Hosts[name] = fleet.Host{System: "x86_64-linux", Tags: []string{}, Channel: "stable", Pubkey: &line}
		doc.Waves["stable"][0].Hosts = append(doc.Waves["stable"][0].Hosts, name)
		nonces.Nonces = append(nonces.Nonces, fleet.Nonce{Nonce: claims.Nonce, Hostname: name, ExpiresAt: claims.ExpiresAt})
	}
	return tickets, errors.Join(publish(folder, ci, "fleet.resolved.json", doc), publish(folder, ci, "bootstrap-nonces.json", nonces))
}

func signer(file string) (trust.Signer, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return trust.LoadSigner(content)
}

func publish(folder fleetdir.Folder, ci trust.Signer, name string, doc any) error {
	canonical, err := trust.Encode(doc)
	if err != nil {
		return err
	}
	sig, err := ci.Sign(canonical)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder.Release(), 0o755); err != nil {
		return err
	}
	path := filepath.Join(folder.Release(), name)
	return errors.Join(os.WriteFile(path+".sig", sig, 0o644), os.WriteFile(path, canonical, 0o644))
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// serveFleet starts a control plane and waits until it is ready. What it gives
// stops it and waits for its end.
func serveFleet(ctx context.Context, binary, dir, address string, folder fleetdir.Folder) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, binary, "--db", "sqlite:"+filepath.Join(dir, "state.db"), "--release-source", folder.Release(),
		"--trust-file", folder.Trust(), "--tls-cert", folder.ServerCert(), "--tls-key", folder.ServerKey(), "--client-ca", folder.CACert(),
		"--ca-cert", folder.CACert(), "--ca-key", folder.CAKey(), "--listen", address)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it was interrupted
	}()
	stop = func() {
		cancel()
		<-ended
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get("https://" + address + wire.PathReadyz)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return stop, nil
			}
		}
		if time.Now().After(end) {
			stop()
			return nil, fmt.Errorf("the control plane did not become ready: %w: %s", err, said.String())
		}
	}
}

// entrance is a control plane as hosts without a certificate know it.
type entrance struct {
	address string
	roots   *x509.CertPool
}

// enrol is what a host does at its first start: it connects, shows its token, and
// reads its certificate.
func (e *entrance) enrol(ctx context.Context, t ticket) error {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: t.address}}
	transport := &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: e.roots, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+e.address+wire.PathEnroll, bytes.NewReader(t.body))
	if err != nil {
		return err
	}
	req.Header.Set(wire.HeaderProtocol, strconv.Itoa(wire.ProtocolVersion))
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var got wire.CertificateResponse
	if resp.StatusCode != http.StatusOK || json.Unmarshal(answer, &got) != nil || got.CertPem == "" {
		return fmt.Errorf("enrol: %s: %s", resp.Status, answer)
	}
	return nil
}

// atRate has hosts come at a rate, whether those before them are through or not,
// and tells how long each took.
func (e *entrance) atRate(ctx context.Context, tickets []ticket) ([]time.Duration, error) {
	took, errs := make([]time.Duration, len(tickets)), make([]error, len(tickets))
	var all sync.WaitGroup
	begin := time.Now()
	for i, t := range tickets {
		due := begin.Add(time.Duration(i) * time.Second / enrolRate)
		time.Sleep(time.Until(due))
		all.Go(func() {
			errs[i] = e.enrol(ctx, t)
			took[i] = time.Since(due)
		})
	}
	all.Wait()
	return took, errors.Join(errs...)
}

// asManyAsCanBe has hosts come as fast as others are through, and tells how many
// a second that are.
func (e *entrance) asManyAsCanBe(ctx context.Context, tickets []ticket) (float64, error) {
	var next, done atomic.Int64
	errs := make([]error, enrolClients)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range enrolClients {
		all.Go(func() {
			for errs[i] == nil && time.Since(begin) < enrolFull {
				n := next.Add(1) - 1
				if n >= int64(len(tickets)) {
					return
				}
				if errs[i] = e.enrol(ctx, tickets[n]); errs[i] == nil {
					done.Add(1)
				}
			}
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds(), errors.Join(errs...)
}
