package agent_test

import (
	"context"
	"errors"
	"net"
	"sync"
)

// network is a network in memory, so that virtual time goes on while somebody
// waits for an answer.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	conns     []net.Conn
	down      bool // nobody is reached
}

func newNetwork() *network { return &network{listeners: map[string]*listener{}} }

// listen makes a server at an address such as "cp.test:443".
func (n *network) listen(address string) *listener {
	l := &listener{address: address, accept: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[address] = l
	return l
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l, down := n.listeners[address], n.down
	n.mu.Unlock()
	if l == nil || down {
		return nil, errors.New("no route to " + address)
	}
	ours, theirs := net.Pipe()
	select {
	case l.accept <- theirs:
		n.mu.Lock()
		n.conns = append(n.conns, ours, theirs)
		n.mu.Unlock()
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused by " + address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut ends all connections, and lets none be made while it is down.
func (n *network) cut(down bool) {
	n.mu.Lock()
	conns := n.conns
	n.conns, n.down = nil, down
	n.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

type listener struct {
	address string
	accept  chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return memoryAddr(l.address) }

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }
