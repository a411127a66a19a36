package crash

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is a daemon of a trial, and what an init system does for it.
type program struct {
	t    *testing.T
	name string
	log  string // file that its output is appended to
	argv []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	ending bool          // it is not started again
	ended  chan struct{} // closed when it runs no more and is not started again
}

// restartAfter is how long an init system waits.
const restartAfter = 100 * time.Millisecond

// start runs the program once, with one more variable when that is not "".
func (p *program) start(variable string) {
	p.t.Helper()
	p.begin(variable, false)
}

// keep runs the program, again and again, until it is stopped.
func (p *program) keep() {
	p.t.Helper()
	p.begin("", true)
}

func (p *program) begin(variable string, again bool) {
	p.t.Helper()
	ended := make(chan struct{})
	p.mu.Lock()
	p.ending, p.ended = !again, ended
	err := p.launch(variable)
	p.mu.Unlock()
	if err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(ended)
		for {
			p.cmd.Wait() // however it ends
			time.Sleep(restartAfter)
			p.mu.Lock()
			over := p.ending
			if !over {
				err = p.launch("")
			}
			p.mu.Unlock()
			if err != nil {
				p.t.Errorf("start the %s again: %v", p.name, err)
			}
			if over || err != nil {
				return
			}
		}
	}()
}

// launch starts one life, in a clean environment.
func (p *program) launch(variable string) error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if variable != "" {
		p.cmd.Env = append(p.cmd.Env, variable)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return spawn(p.cmd)
}

// spawn starts a process that dies with this one. The kernel looks at the thread
// that started it, so all are started by one that never ends.
func spawn(cmd *exec.Cmd) error {
	spawner.Do(func() {
		go func() {
			runtime.LockOSThread()
			for c := range toSpawn {
				spawned <- c.Start()
			}
		}()
	})
	forking.RLock()
	defer forking.RUnlock()
	spawning.Lock()
	defer spawning.Unlock()
	toSpawn <- cmd
	return <-spawned
}

var (
	spawner  sync.Once
	spawning sync.Mutex
	toSpawn  = make(chan *exec.Cmd)
	spawned  = make(chan error)
)

// forking is held for reading while this process starts others, and for writing
// while it writes a program: a child that was forked and not executed yet has the
// open file, too, and Linux executes no file that is open for writing.
var forking sync.RWMutex

// stop ends the program for good. One that does not run is no error.
func (p *program) stop(s syscall.Signal) {
	p.mu.Lock()
	p.ending = true
	ended := p.ended
	if ended != nil {
		p.cmd.Process.Signal(s) // it may have ended
	}
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// said is what it wrote.
func (p *program) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// lives is how often it has said that it is up.
func (p *program) lives() int { return strings.Count(p.said(), `"msg":"started"`) }
