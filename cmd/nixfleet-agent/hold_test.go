package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

func TestHoldAndRelease(t *testing.T) {
	_, socket, flags := agentFiles(t)
	ctx, stop := context.WithCancel(t.Context())
	var said bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- run(ctx, flags, &said, &said) }()
	defer func() {
		stop()
		if code := <-done; code != exitOK {
			t.Errorf("the agent ended with %d: %s", code, said.String())
		}
	}()
	tell := func(args ...string) (code int, said string) {
		var out bytes.Buffer
		code = run(t.Context(), append(args, "--socket="+socket), &out, &out)
		return code, out.String()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		code, said := tell("status")
		if code == exitOK {
			break
		}
		if time.Now().After(end) {
			t.Fatal(said)
		}
	}
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"hold"}, exitUse, "--reason"},
		{[]string{"hold", "--reason=x", "--for=soon"}, exitUse, "90s"},
		{[]string{"hold", "--reason=x", "--for=0"}, exitUse, "at least 1s"},
		{[]string{"hold", "--reason=x", "--for=1000h"}, exitNo, "720h"},
		{[]string{"hold", "--reason="}, exitNo, "wants one"},
		{[]string{"release"}, exitOK, "nothing is held here"},
		{[]string{"hold", "--reason=a new disk"}, exitOK, "no new targets are taken until 20"},
		{[]string{"status"}, exitOK, "a new disk"},
		{[]string{"release"}, exitOK, "a new disk"},
		{[]string{"release"}, exitOK, "nothing is held here"},
	} {
		if code, said := tell(test.args...); code != test.code || !strings.Contains(said, test.says) {
			t.Errorf("%v: %d %s", test.args, code, said)
		}
	}
}
