package main

import (
	"bytes"
	"context"
	"testing"
	"time"
)

// running runs an agent until the test ends, and gives what asks it over its
// socket once it answers.
func running(t *testing.T, socket string, flags []string) (tell func(args ...string) (code int, said string)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var said bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- run(ctx, flags, &said, &said) }()
	t.Cleanup(func() {
		stop()
		if code := <-done; code != exitOK {
			t.Errorf("the agent ended with %d: %s", code, said.String())
		}
	})
	tell = func(args ...string) (code int, said string) {
		var out bytes.Buffer
		code = run(t.Context(), append(args, "--socket="+socket), &out, &out)
		return code, out.String()
	}
	// Nothing says when the socket is there: it is asked until then.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		code, said := tell("status")
		if code == exitOK {
			return tell
		}
		if time.Now().After(end) {
			t.Fatal(said)
		}
	}
}
