package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
)

const networkFile = "etc/network.json"

// routes lead to the uplinks, by their names.
type routes map[string]string

// The uplinks of a demo's machines.
const (
	toControlPlane = "control-plane"
	toCache        = "cache"
)

// networkSettings are a closure's network configuration.
type networkSettings struct {
	Routes routes `json:"routes"`
}

// serveNetwork is a machine's network: the only way that its agent has to the
// control plane and to the cache. What it has no route to cannot be reached, and
// when it ends all connections end.
func serveNetwork(ctx context.Context, settings []byte, m machineSettings, ready func()) error {
	var network networkSettings
	if err := json.Unmarshal(settings, &network); err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for name, to := range network.Routes {
		near, known := m.Uplinks[name]
		if !known {
			return fmt.Errorf("a route to %q, which this machine knows nothing of", name)
		}
		l, err := listenReserved(ctx, near)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { l.Close() })
		work.Go(func() { forward(ctx, l, to) })
	}
	ready()
	<-ctx.Done()
	return nil
}

// forward connects whoever comes to l with an address, until ctx ends.
func forward(ctx context.Context, l net.Listener, to string) {
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		near, err := l.Accept()
		if err != nil {
			return // it was closed
		}
		connections.Go(func() {
			defer near.Close()
			var d net.Dialer
			far, err := d.DialContext(ctx, "tcp", to)
			if err != nil {
				return // as if nobody listened here
			}
			join(ctx, near, far)
		})
	}
}

// join copies both ways until one of them ends, which with HTTP is the end.
func join(ctx context.Context, near, far net.Conn) {
	closeBoth := func() { near.Close(); far.Close() }
	defer context.AfterFunc(ctx, closeBoth)()
	var there sync.WaitGroup
	there.Go(func() {
		io.Copy(far, near) // an error ends it as well
		closeBoth()
	})
	io.Copy(near, far)
	closeBoth()
	there.Wait()
}
