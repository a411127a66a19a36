package agent_test

import (
	"os"
	"strings"
	"testing"

	"nixfleet/internal/agent"
	"nixfleet/internal/lifecycle"
)

// An agent says what others can reach, and how to end that, and does its work.
func TestSecretsThatAreNotPrivateAreWarnedOf(t *testing.T) {
	const warning = "a secret is not private"
	story(t, func(w *world) {
		if said := w.logText(); strings.Contains(said, warning) {
			t.Errorf("all are private, and it said\n%s", said)
		}
		w.stop()
		w.write("token", nil)
		w.config = func(c *agent.Config) { c.ClientKeyFile, c.BootstrapTokenFile = w.path("client_key"), w.path("token") }
		key, err := os.ReadFile(w.path("host_key"))
		w.must(err)
		w.write("client_key", key)
		for name, mode := range map[string]os.FileMode{"host_key": 0o640, "client_key": 0o604, "token": 0o644, "state": 0o755} {
			w.must(os.Chmod(w.path(name), mode))
		}
		w.start()
		w.until(w.release(w.v2), lifecycle.Converged)
		said := w.logText()
		for name, want := range map[string][2]string{
			"host_key": {"the SSH host key", "600"}, "client_key": {"the client key", "600"},
			"token": {"the bootstrap token", "600"}, "state": {"the state directory", "700"},
		} {
			what, mode := want[0], want[1]
			found := false
			for line := range strings.Lines(said) {
				found = found || strings.Contains(line, warning) && strings.Contains(line, what) && strings.Contains(line, "chmod "+mode+" "+w.path(name))
			}
			if !found {
				t.Errorf("nothing is said about %s with the mode of %s", what, name)
			}
		}
	})
}
