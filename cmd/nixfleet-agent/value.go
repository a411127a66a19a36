package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nixfleet/internal/fleet"
)

// Types of flags. Each says in its error which value is wrong and what is
// allowed; kong puts the flag's name before it.

// seconds is a duration; a bare number is seconds.
type seconds time.Duration

func (d *seconds) UnmarshalText(text []byte) error {
	s := string(text)
	if n, err := strconv.Atoi(s); err == nil {
		s = strconv.Itoa(n) + "s"
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not allowed: want a duration such as 90s or 5m, or a number of seconds", text)
	}
	*d = seconds(v)
	return nil
}

// byteSize is a number of bytes, with a unit.
type byteSize uint64

var units = []struct {
	suffix string
	factor uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

func (b *byteSize) UnmarshalText(text []byte) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64); err == nil && n < 1<<62/u.factor {
			*b = byteSize(n * u.factor)
			return nil
		}
		break
	}
	return fmt.Errorf("%q is not allowed: want a size such as 64MiB or 1GiB (B, KiB, MiB, GiB, TiB)", text)
}

// httpsURL is the base of a service that is only reached over TLS.
type httpsURL string

func (u *httpsURL) UnmarshalText(text []byte) error {
	v, err := url.Parse(string(text))
	if err != nil || v.Scheme != "https" || v.Host == "" || v.RawQuery != "" || v.Fragment != "" || v.User != nil {
		return fmt.Errorf("%q is not allowed: want https://host[:port]", text)
	}
	*u = httpsURL(text)
	return nil
}

// parsed is the URL, which UnmarshalText has checked.
func (u httpsURL) parsed() *url.URL {
	v, err := url.Parse(string(u))
	if err != nil {
		panic(err)
	}
	return v
}

// cacheURL is a binary cache. Plain HTTP is good: paths are signed.
type cacheURL string

func (u *cacheURL) UnmarshalText(text []byte) error {
	v, err := url.Parse(string(text))
	if err != nil || v.Scheme != "https" && v.Scheme != "http" && v.Scheme != "file" {
		return fmt.Errorf("%q is not allowed: want http://, https:// or file://", text)
	}
	*u = cacheURL(text)
	return nil
}

// machineID is a host's name in its fleet.
type machineID string

func (m *machineID) UnmarshalText(text []byte) error {
	if err := fleet.CheckHostname(string(text)); err != nil {
		return fmt.Errorf("%q is not allowed: %w", text, err)
	}
	*m = machineID(text)
	return nil
}

// fraction is a number between 0 and 1.
type fraction float64

func (f *fraction) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(v > 0 && v < 1) {
		return fmt.Errorf("%q is not allowed: want a number between 0 and 1", text)
	}
	*f = fraction(v)
	return nil
}

// component is a part of a system that may not be swapped while it runs.
type component string

var components = []component{"dbus", "systemd", "kernel"}

func (c *component) UnmarshalText(text []byte) error {
	if !slices.Contains(components, component(text)) {
		return fmt.Errorf("%q is not allowed: want a list of dbus, systemd, kernel", text)
	}
	*c = component(text)
	return nil
}

// address is where to listen.
type address string

func (a *address) UnmarshalText(text []byte) error {
	s := string(text)
	if strings.HasPrefix(s, ":") {
		s = "127.0.0.1" + s // loopback unless told otherwise
	}
	host, port, err := net.SplitHostPort(s)
	if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 || host == "" {
		return fmt.Errorf("%q is not allowed: want host:port, or :port for loopback", text)
	}
	*a = address(s)
	return nil
}

// kind is which kind of machine this is.
type kind string

func (k *kind) UnmarshalText(text []byte) error {
	s := string(text)
	dir, isDir := strings.CutPrefix(s, "dirhost:")
	if !slices.Contains([]string{"auto", "nixos", "darwin"}, s) && (!isDir || dir == "") {
		return fmt.Errorf("%q is not allowed: want auto, nixos, darwin or dirhost:<dir>", text)
	}
	*k = kind(s)
	return nil
}

// level is how much is logged.
type level slog.Level

func (l *level) UnmarshalText(text []byte) error {
	var v slog.Level
	if err := v.UnmarshalText(text); err != nil {
		return fmt.Errorf("%q is not allowed: want debug, info, warn or error", text)
	}
	*l = level(v)
	return nil
}
