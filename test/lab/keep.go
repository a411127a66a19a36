package lab

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var keep = flag.Bool("keep", false, "when a scenario ends, leave its hosts running for a look until Ctrl-C")

// keep leaves the host running, and says how to get into it.
func (h *Host) keep(t testing.TB) {
	if !*keep || h.initPID() == 0 {
		return
	}
	// The lab's processes have other numbers outside: there it is the child of the
	// test program that made it.
	fmt.Printf("%s of %s is kept until Ctrl-C. A shell in it:\n  nsenter -t $(pgrep -P %s) -m -p -n nsenter -t %d -a env -i HOME=/root TERM=$TERM PATH=/usr/sbin:/usr/bin bash\n",
		h.Name, t.Name(), os.Getenv(inner), h.initPID())
	select {}
}
