package probe

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"
)

func (s settings) tcpCheck(m Machine) (Func, time.Duration, error) {
	if s.Port == 0 {
		return nil, 0, errors.New("port: 1 to 65535 is needed")
	}
	if s.Host == "" {
		return nil, 0, errors.New("host: a name or address is needed")
	}
	address := net.JoinHostPort(unbracketed(s.Host), strconv.Itoa(s.Port))
	return func(ctx context.Context) Verdict {
		conn, err := m.Dial(ctx, "tcp", address)
		if err != nil {
			return fail(err.Error())
		}
		conn.Close() // that it opened is the verdict
		return pass()
	}, s.connectTimeout(), nil
}
