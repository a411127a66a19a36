package probe

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"testing"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// TestTCP: every reason, to the letter. That of a connection that takes too long
// is in TestConnectTimeout.
func TestTCP(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	expectExactly(t, checkOf(t, fmt.Sprintf(`{"kind":"tcp","port":%d}`, port), Machine{})(t.Context()), "")

	_, closed, err := net.SplitHostPort(closedAddress(t, "tcp4", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	expectExactly(t, checkOf(t, fmt.Sprintf(`{"kind":"tcp","port":%s}`, closed), Machine{})(t.Context()), "dial tcp 127.0.0.1:"+closed+": connect: connection refused")
	expectExactly(t, checkOf(t, `{"kind":"tcp","port":80,"host":"no such host"}`, Machine{})(t.Context()), "dial tcp: lookup no such host: no such host")
}

// TestIPv6Literals: in both forms, by both kinds.
func TestIPv6Literals(t *testing.T) {
	listener, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatalf("IPv6 on the loopback is needed: %v", err)
	}
	server := httptest.NewUnstartedServer(site())
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	for _, text := range []string{
		fmt.Sprintf(`{"kind":"tcp","host":"::1","port":%d}`, port),
		fmt.Sprintf(`{"kind":"tcp","host":"[::1]","port":%d}`, port),
		fmt.Sprintf(`{"kind":"http","url":"http://[::1]:%d/ok"}`, port),
	} {
		expectExactly(t, checkOf(t, text, Machine{})(t.Context()), "")
	}
}
