package nixos

import (
	"strings"
	"testing"
)

func TestWhoBlocksAReboot(t *testing.T) {
	for _, c := range []struct {
		held []inhibitor
		says string // "" is nobody
	}{
		{nil, ""},
		{[]inhibitor{{What: "shutdown", Who: "NetworkManager", Mode: "delay"}}, ""},
		{[]inhibitor{{What: "sleep:idle", Who: "player", Mode: "block"}}, ""},
		{[]inhibitor{{What: "handle-power-key", Who: "desktop", Mode: "block"}, {What: "sleep:shutdown", Who: "backup", Why: "it writes", Mode: "block", PID: 7}},
			"backup (process 7) blocks it: it writes"},
		{[]inhibitor{{What: "shutdown", Who: "desktop", Mode: "block-weak"}}, "desktop"},
	} {
		err := blocked(c.held)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.held, err, c.says)
		}
	}
}
