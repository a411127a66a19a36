package demo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// machine is one host of the demo: a directory, in which everything lies where
// a real host has it.
type machine struct {
	name string
	root string // absolute
	key  ed25519.PublicKey

	web     string     // address of its web service
	uplinks routes     // the addresses at which the agent finds control plane and cache
	taken   []*os.File // the reservations of the ports
}

func (m *machine) in(path string) string { return filepath.Join(m.root, filepath.FromSlash(path)) }

// The files of a machine that others know of, below its root.
const (
	stateDir         = "var/lib/nixfleet-agent"
	hostKeyFile      = "etc/ssh/ssh_host_ed25519_key"
	tokenFile        = "etc/nixfleet/agent/bootstrap-token.json"
	healthChecksFile = "etc/nixfleet/agent/health-checks.json"
	trustFile        = "etc/nixfleet/agent/trust.json"
	agentLog         = "var/log/agent"
	switchLog        = "var/log/switches"
	socketFile       = "run/agent.sock"
)

// newMachine makes the directory, without a system yet.
func newMachine(root, name string, trust []byte, lock, program string) (*machine, error) {
	m := &machine{name: name, root: root, uplinks: routes{}}
	var err error
	if m.web, err = m.reserve(); err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	for _, uplink := range []string{toControlPlane, toCache} {
		if m.uplinks[uplink], err = m.reserve(); err != nil {
			return nil, fmt.Errorf("machine %s: %w", name, err)
		}
	}
	private, key, err := newHostKey(name)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	m.key = key
	checks, err := json.Marshal(map[string]any{"web": map[string]any{
		"kind": "http", "mode": "enforce", "url": "http://" + m.web + "/", "intervalSeconds": 1, "timeoutSecs": 2,
	}})
	if err != nil {
		return nil, err
	}
	err = writeFiles(root, []file{
		{hostKeyFile, private, 0o600},
		{trustFile, trust, 0o644},
		{healthChecksFile, checks, 0o644},
		{machineFile, settings(machineSettings{Web: m.web, Uplinks: m.uplinks, Lock: lock}), 0o644},
		{"etc/restart-services", fmt.Appendf(nil, restartServices, shellQuote(program)), 0o755},
		{switchLog, nil, 0o644},
	})
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	return m, nil
}

// reserve takes a port for the machine, and gives its address.
func (m *machine) reserve() (string, error) {
	f, port, err := reservePort()
	if err != nil {
		return "", err
	}
	m.taken = append(m.taken, f)
	return "127.0.0.1:" + strconv.Itoa(port), nil
}

func newHostKey(comment string) (private []byte, public ed25519.PublicKey, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(block), public, nil
}

// install puts the machine's first system on it and turns it on.
func (m *machine) install(ctx context.Context, c fleet.Closure, cache, cacheKey string) error {
	machine, err := dirhost.Open(m.root, dirhost.Options{})
	if err != nil {
		return err
	}
	defer machine.Close()
	err = machine.Install(ctx, host.Fetch{Rollout: "installed", Closure: c, Caches: []string{cache}, CacheKeys: []string{cacheKey}})
	if err != nil {
		return fmt.Errorf("install machine %s: %w", m.name, err)
	}
	return m.startServices(ctx)
}

// startServices is what the machine's boot does beside what dirhost does.
func (m *machine) startServices(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, m.in("etc/restart-services"), m.in("run/current-system"))
	cmd.Env = append(plainEnviron(), "NIXFLEET_ROOT="+m.root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("boot machine %s: %w\n%s", m.name, err, out)
	}
	return nil
}

func (m *machine) pubkeyLine() string { return identity.FormatPublicKey(m.key, m.name) }

// switching tells whether a run of the closure's switch program with test is
// under way: its log says begin and not yet end.
func (m *machine) switching(c fleet.Closure) bool {
	state, err := m.look()
	if err != nil {
		return false
	}
	begun := false
	for _, s := range state.switches {
		if s.action == "test" && s.closure == c {
			begun = s.begin
		}
	}
	return begun
}

// machineState is what a machine's directory shows.
type machineState struct {
	current, bootDefault fleet.Closure
	switches             []switchLine
	journal              []wire.Envelope // of the rollout that was asked for
	revivals             []time.Time     // of the agent
}

// switchLine is a line that a switch program wrote.
type switchLine struct {
	begin   bool // else end
	action  string
	closure fleet.Closure
}

// look reads what runs, what boots and what was switched to.
func (m *machine) look() (machineState, error) {
	var s machineState
	link, err := os.Readlink(m.in("run/current-system"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err == nil {
		s.current = fleet.Closure(filepath.Base(link))
	}
	def, err := os.ReadFile(m.in("boot/default"))
	if err != nil {
		return s, err
	}
	s.bootDefault = fleet.Closure(filepath.Base(strings.TrimSpace(string(def))))
	log, err := os.ReadFile(m.in(switchLog))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(log)) {
		if f := strings.Fields(line); len(f) == 3 {
			s.switches = append(s.switches, switchLine{begin: f[0] == "begin", action: f[1], closure: fleet.Closure(f[2])})
		}
	}
	return s, nil
}

// events reads a rollout's events from the agent's journal, which the agent may
// be writing: it is copied until two copies agree.
func (m *machine) events(rollout, scratch string) ([]wire.Envelope, error) {
	file := m.in(stateDir + "/journal.db")
	var last []byte
	for range 50 {
		now, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(now, last) {
			return readEvents(now, rollout, scratch)
		}
		last = now
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("the journal of %s changes all the time", m.name)
}

// committed tells whether the agent has committed an event of a kind in a rollout.
func (m *machine) committed(rollout string, kind lifecycle.Kind, scratch string) (bool, error) {
	envelopes, err := m.events(rollout, scratch)
	if err != nil {
		return false, err
	}
	for _, e := range envelopes {
		event, err := wire.DecodeEvent(e.Event)
		if err != nil {
			return false, err
		}
		if event.Body.Kind() == kind {
			return true, nil
		}
	}
	return false, nil
}

func readEvents(db []byte, rollout, scratch string) ([]wire.Envelope, error) {
	f, err := os.CreateTemp(scratch, "journal-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // the whole folder goes at the end anyway
	_, err = f.Write(db)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	j, err := journal.Open(f.Name())
	if err != nil {
		return nil, err
	}
	defer j.Close()
	var events []wire.Envelope
	err = j.View(func(tx *journal.Tx) error {
		for _, raw := range tx.Events(rollout, 1) {
			var e wire.Envelope
			if err := json.Unmarshal(raw, &e); err != nil {
				return err
			}
			events = append(events, e)
		}
		return nil
	})
	return events, err
}

// revivals are the times at which a program began anew that had not said that it
// stops: it was killed.
func revivals(log, started string) ([]time.Time, error) {
	lines, err := linesOf(log)
	var times []time.Time
	alive := false
	for _, line := range lines {
		switch line.Msg {
		case started:
			if alive {
				times = append(times, line.Time)
			}
			alive = true
		case stopped:
			alive = false
		}
	}
	return times, err
}

// logLine is a line of a program's JSON log, as far as anybody wants to know.
type logLine struct {
	Time     time.Time `json:"time"`
	Msg      string    `json:"msg"`
	Document string    `json:"document"`
	Reason   string    `json:"reason"`
}

// saidIn are the lines of a program's JSON log with the given message.
func saidIn(log, message string) ([]logLine, error) {
	lines, err := linesOf(log)
	return slices.DeleteFunc(lines, func(l logLine) bool { return l.Msg != message }), err
}

// linesOf are the lines of a program's JSON log. What is none is left out: a
// program that was killed may have cut one off.
func linesOf(log string) ([]logLine, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []logLine
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line logLine
		if json.Unmarshal(lines.Bytes(), &line) == nil {
			all = append(all, line)
		}
	}
	return all, lines.Err()
}
