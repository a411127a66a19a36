package dirhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
)

// Nobody supervises the agent of a machine in a directory but whoever started it.
// Who may be the agent is settled by a flock of run/agent, which has the agent's
// process id in it: an agent holds it as long as it lives, and a guard as long as
// it keeps the agent down. The kernel frees it, whatever they die of.

// StartGuard starts the guard as any other unit. Nobody starts it again when it
// dies; an agent that lives sees to that.
func (m *Machine) StartGuard(ctx context.Context, g host.GuardUnit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	st := started{ID: newID()}
	dir := m.unitDir(host.SlotGuard)
	if err := takeSlot(dir, st); err != nil {
		return fmt.Errorf("start %s: %w", host.SlotGuard, err)
	}
	if err := m.runner.Start(Unit{Dir: dir, Program: g.Program, Args: g.Args, Env: append(m.env(st), crashpoint.Environ()...)}); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", host.SlotGuard, err), os.RemoveAll(dir))
	}
	return nil
}

// agentPoll is how often the place of the agent is tried for.
const agentPoll = 50 * time.Millisecond

// BeAgent waits for the lock and leaves this process's id in it.
func (m *Machine) BeAgent(ctx context.Context) (release func(), err error) {
	for {
		// Opened anew each time: a boot begins the folder anew.
		place, err := m.takeAgentPlace()
		switch {
		case err == nil:
			if err := errors.Join(place.Truncate(0), writeAt(place, strconv.Itoa(os.Getpid()))); err != nil {
				place.Close() // and with it the lock
				return nil, fmt.Errorf("become the machine's agent: %w", err)
			}
			return func() { place.Close() }, nil
		case !errors.Is(err, errPlaceTaken):
			return nil, fmt.Errorf("become the machine's agent: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(agentPoll):
		}
	}
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

var errPlaceTaken = errors.New("there is an agent, or a guard keeps it down")

func (m *Machine) takeAgentPlace() (*os.File, error) {
	place, err := os.OpenFile(m.path("run/agent"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(place.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return place, nil
	}
	place.Close() // nothing was written
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errPlaceTaken
	}
	return nil, err
}

// Times of StopAgent.
const (
	agentDrain = 5 * time.Second  // from SIGTERM to SIGKILL
	agentDeath = 10 * time.Second // from SIGKILL to giving up
)

// StopAgent signals the process that holds the place, until it is ours.
func (m *Machine) StopAgent(ctx context.Context) error {
	if m.agentDown.Load() != nil {
		return nil
	}
	signal := syscall.Signal(0)
	for waited := time.Duration(0); ; waited += agentPoll {
		place, err := m.takeAgentPlace()
		if err == nil {
			m.agentDown.Store(place)
			return nil
		}
		if !errors.Is(err, errPlaceTaken) || waited > agentDrain+agentDeath {
			return fmt.Errorf("stop the agent: %w", err)
		}
		next := syscall.SIGTERM
		if waited >= agentDrain {
			next = syscall.SIGKILL
		}
		if next != signal {
			sent, err := m.signalAgent(next)
			if err != nil {
				return fmt.Errorf("stop the agent: %w", err)
			}
			if sent {
				signal = next
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(agentPoll):
		}
	}
}

// signalAgent signals whoever holds the agent's place. The lock was seen to be
// held a moment ago, so the id in it is a living process's; there is none while
// an agent is just taking the place.
func (m *Machine) signalAgent(s syscall.Signal) (sent bool, err error) {
	text, err := os.ReadFile(m.path("run/agent"))
	if err != nil {
		return false, err
	}
	pid, err := strconv.Atoi(string(text))
	switch {
	case err != nil || pid <= 1:
		return false, nil
	case pid == os.Getpid():
		return false, errors.New("the agent is this very process")
	}
	err = syscall.Kill(pid, s)
	if s == syscall.SIGTERM {
		// A stopped process is woken for it, as service managers do.
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
	}
	if errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	return true, err
}

// StartAgent gives the place free. Whoever supervises the agent starts it.
func (m *Machine) StartAgent(ctx context.Context) error {
	if place := m.agentDown.Swap(nil); place != nil {
		return place.Close()
	}
	return nil
}

// SystemState is up: this machine has no other.
func (m *Machine) SystemState(ctx context.Context) (host.SystemState, error) {
	return host.SystemUp, ctx.Err()
}

// Clock is the wall clock: a machine in a directory sleeps when its programs do.
func (m *Machine) Clock() time.Duration { return time.Duration(time.Now().UnixNano()) }

// BootDir is below run/, which a boot begins anew.
func (m *Machine) BootDir() string { return m.path("run/nixfleet-guard") }
