package main

import (
	"strings"
	"testing"
)

func TestHoldAndRelease(t *testing.T) {
	_, socket, flags := agentFiles(t)
	tell := running(t, socket, flags)
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
