package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// reservePort takes a free TCP port of the loopback interface without listening
// on it: nobody else is given it, and a service that also asks to share it can
// listen. The reservation lasts until the file is closed.
func reservePort() (*os.File, int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, 0, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "reserved port")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("bind", err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("getsockname", err)
	}
	return f, addr.(*unix.SockaddrInet4).Port, nil
}

// Ports that are given to nobody who asks for any: they are below what systems
// take such ports from.
const (
	firstPort = 20000
	lastPort  = 29999
)

// claimPort takes a TCP port of the loopback interface for a program that cannot
// share one, and that may be down now and then. No other demo is given it until
// the claim, which is the UDP port of the same number, is closed.
func claimPort() (io.Closer, int, error) {
	var err error
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		var claim net.PacketConn
		if claim, err = net.ListenPacket("udp", address); err != nil {
			continue
		}
		var free net.Listener
		if free, err = net.Listen("tcp", address); err != nil {
			claim.Close()
			continue
		}
		return claim, port, free.Close()
	}
	return nil, 0, fmt.Errorf("no port is free: %w", err)
}

// listenReserved listens on a port that is reserved.
func listenReserved(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: sharePort}
	return lc.Listen(ctx, "tcp", address)
}

func sharePort(_, _ string, c syscall.RawConn) error {
	var opt error
	if err := c.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", opt)
}
