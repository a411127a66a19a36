package demo

import (
	"fmt"
	"net"
	"testing"
)

// A claimed port is nobody else's, also while nothing listens on it: not another
// demo's, and not one that the system gives to whoever asks for any.
func TestClaimPort(t *testing.T) {
	t.Parallel()
	claimed := map[int]bool{}
	for range 200 {
		claim, port, err := claimPort()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { claim.Close() })
		if claimed[port] {
			t.Fatalf("%d was claimed twice", port)
		}
		claimed[port] = true
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatalf("a claimed port cannot be listened on: %v", err)
		}
		t.Cleanup(func() { l.Close() })
	}
	for range 200 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if port := l.Addr().(*net.TCPAddr).Port; port >= firstPort && port <= lastPort {
			t.Fatalf("the system gave away %d", port)
		}
	}
}
