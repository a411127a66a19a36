package main

import (
	"net"
	"strconv"
	"testing"
	"time"
)

// FuzzValues: a value of a flag that is taken is within what is allowed, and stays
// what it is when it is written and given again.
func FuzzValues(f *testing.F) {
	for _, text := range []string{"90", "90s", "5m", "-1s", "9223372036854775807", "1GiB", "64 MiB", "18446744073709551615B", "4611686018427387904",
		"0.5", "NaN", "Inf", "https://fleet:8443/", "https://user@fleet", "file:///cache", ":9100", "[::1]:9100", "0.0.0.0:99999", "web-01", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		raw := []byte(text)
		var d seconds
		if d.UnmarshalText(raw) == nil {
			var again seconds
			if d < 0 || again.UnmarshalText([]byte(time.Duration(d).String())) != nil || again != d {
				t.Fatalf("%q is %s, and then %s", text, time.Duration(d), time.Duration(again))
			}
		}
		var b byteSize
		if b.UnmarshalText(raw) == nil {
			var again byteSize
			if b >= 1<<62 || again.UnmarshalText([]byte(strconv.FormatUint(uint64(b), 10)+"B")) != nil || again != b {
				t.Fatalf("%q is %d bytes, and then %d", text, b, again)
			}
		}
		var x fraction
		if x.UnmarshalText(raw) == nil && !(x > 0 && x < 1) {
			t.Fatalf("%q is %f", text, x)
		}
		var u httpsURL
		if u.UnmarshalText(raw) == nil {
			if v := u.parsed(); v.Scheme != "https" || v.Host == "" || v.User != nil {
				t.Fatalf("%q is %s", text, v)
			}
		}
		var a address
		if a.UnmarshalText(raw) == nil {
			host, port, err := net.SplitHostPort(string(a))
			n, portErr := strconv.Atoi(port)
			if err != nil || portErr != nil || host == "" || n < 0 || n > 65535 {
				t.Fatalf("%q listens on %q", text, a)
			}
		}
	})
}
