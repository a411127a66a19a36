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
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// machine is one host of the demo: a directory, in which everything lies where
// a real host has it.
type machine struct {
	name string
	root string // absolute
	key  ed25519.PublicKey

	port  int      // of its service
	taken *os.File // the reservation of the port
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
func newMachine(root, name string, trust []byte, service Service, program string) (*machine, error) {
	m := &machine{name: name, root: root}
	var err error
	if m.taken, m.port, err = reservePort(); err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	service.Address = "127.0.0.1:" + strconv.Itoa(m.port)
	private, key, err := newHostKey(name)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	m.key = key
	checks, err := json.Marshal(map[string]any{"service": map[string]any{
		"kind": "http", "mode": "enforce", "url": "http://" + service.Address + "/", "intervalSeconds": 1, "timeoutSecs": 2,
	}})
	if err != nil {
		return nil, err
	}
	err = writeFiles(root, []file{
		{hostKeyFile, private, 0o600},
		{trustFile, trust, 0o644},
		{healthChecksFile, checks, 0o644},
		{"etc/restart-service", fmt.Appendf(nil, restartService, shellQuote(program), service.Address, shellQuote(service.Lock)), 0o755},
		{switchLog, nil, 0o644},
	})
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	return m, nil
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
	agentStarts          []time.Time
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

// starts are the times at which a program's JSON log has the given message.
func starts(log, message string) ([]time.Time, error) {
	lines, err := saidIn(log, message)
	var times []time.Time
	for _, line := range lines {
		times = append(times, line.Time)
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
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []logLine
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line logLine
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == message {
			found = append(found, line)
		}
	}
	return found, lines.Err()
}
