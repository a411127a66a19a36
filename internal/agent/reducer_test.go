package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

const (
	was   = fleet.Closure("00000000000000000000000000000001-nixos-system-was")
	wants = fleet.Closure("00000000000000000000000000000002-nixos-system-wants")
	id    = "stable@01"
)

// switching is a reducer whose host's switch is under way.
func switching(t *testing.T) *reducer {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	policy := fleet.DefaultPolicy()
	manifest := &fleet.Manifest{Channel: "stable", ChannelRef: "01", Policy: &policy, HostSet: []fleet.Target{{Hostname: "web-01", TargetClosure: wants}}}
	h, err := lifecycle.New("web-01", id, manifest, "plan", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := newReducer(Config{MachineID: "web-01", StateDir: dir, Log: slog.New(slog.DiscardHandler)}, key, j, &state{
		facts:    &host.Facts{Current: was, BootDefault: was, BootID: "b"},
		rollouts: []*entry{{Rollout: journal.Rollout{Host: h}, since: now}},
	})
	reduce(t, r, happens(lifecycle.DispatchAck{CurrentClosureAtDispatch: was}))
	reduce(t, r, happens(lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: was, BootID: "b", BootDefaultWas: was}))
	return r
}

func happens(body lifecycle.Body) func(*turn) error {
	return func(t *turn) error { return t.event(id, body) }
}

// reduce makes one turn of the given inputs and gives their verdicts.
func reduce(t *testing.T, r *reducer, inputs ...func(*turn) error) []error {
	t.Helper()
	var batch []input
	for _, apply := range inputs {
		batch = append(batch, input{apply: apply, done: make(chan error, 1)})
	}
	r.turn(batch)
	var verdicts []error
	for _, in := range batch {
		verdicts = append(verdicts, <-in.done)
	}
	return verdicts
}

// TestALookFromBeforeTheOutcomeIsNotHeldAgainstIt: the machine is looked at while
// its switch runs, and what was seen arrives together with the outcome.
func TestALookFromBeforeTheOutcomeIsNotHeldAgainstIt(t *testing.T) {
	completed := happens(lifecycle.ActivationCompleted{ObservedCurrentClosure: wants, BootID: "b"})
	look := func(changes int64) func(*turn) error {
		return func(t *turn) error {
			return t.observe(host.Facts{Current: was, BootDefault: was, BootID: "b"}, changes, ClockState{}, false)
		}
	}
	for _, order := range []string{"before", "after", "in a later turn"} {
		t.Run(order, func(t *testing.T) {
			r := switching(t)
			early := look(r.view().changes)
			switch order {
			case "before":
				reduce(t, r, early, completed)
			case "after":
				if verdicts := reduce(t, r, completed, early); !errors.Is(verdicts[1], errOutdated) {
					t.Errorf("the look was taken: %v", verdicts[1])
				}
			case "in a later turn":
				reduce(t, r, completed)
				reduce(t, r, early)
			}
			if h := r.view().find(id).Host; h.State != lifecycle.Soaking {
				t.Errorf("the host is %s: %+v", h.State, h.Failure)
			}
			reduce(t, r, look(r.view().changes)) // a later look is
			if h := r.view().find(id).Host; h.State != lifecycle.Failed || h.Failure.Cause != lifecycle.CauseDrift {
				t.Errorf("somebody switched back, and the host is %s", h.State)
			}
		})
	}
}

func TestARefusedInputLeavesNoTrace(t *testing.T) {
	r := switching(t)
	before := r.view().find(id).Host.Seq
	half := func(t *turn) error {
		return errors.Join(happens(lifecycle.ActivationCompleted{ObservedCurrentClosure: wants})(t), errors.New("no"))
	}
	signal := happens(lifecycle.RollbackSignal{OrderID: "1", Obeyed: true})
	if verdicts := reduce(t, r, half, signal); verdicts[0] == nil || verdicts[1] != nil {
		t.Errorf("verdicts: %v", verdicts)
	}
	h := r.view().find(id).Host
	if h.State != lifecycle.Activating || !h.SignalPending || h.Seq != before+1 {
		t.Errorf("the host is %s, signal pending %t, event %d after %d", h.State, h.SignalPending, h.Seq, before)
	}
}

func TestNothingHappensWhenTheJournalTakesNoCommit(t *testing.T) {
	r := switching(t)
	before := r.view().find(id).Host
	if err := r.journal.Close(); err != nil {
		t.Fatal(err)
	}
	verdicts := reduce(t, r, happens(lifecycle.ActivationCompleted{ObservedCurrentClosure: wants}))
	if verdicts[0] == nil {
		t.Error("the worker was told that its outcome is committed")
	}
	if after := r.view().find(id).Host; after.State != before.State || after.Seq != before.Seq {
		t.Errorf("the state went on to %s, event %d", after.State, after.Seq)
	}
}

// TestWaitingInputsAreOneCommit: numbers are given in the order of the inputs.
func TestWaitingInputsAreOneCommit(t *testing.T) {
	r := switching(t)
	seq := r.view().find(id).Host.Seq
	inputs := slices.Repeat([]func(*turn) error{happens(lifecycle.Notice{Code: "x"})}, 10)
	for _, err := range reduce(t, r, inputs...) {
		if err != nil {
			t.Error(err)
		}
	}
	err := r.journal.View(func(tx *journal.Tx) error {
		for got := range tx.Events(id, seq+1) {
			if seq++; got != seq {
				t.Errorf("event %d where %d should be", got, seq)
			}
		}
		return nil
	})
	if h := r.view().find(id).Host; err != nil || h.Seq != seq {
		t.Errorf("%d events in the journal, the state says %d (%v)", seq, h.Seq, err)
	}
}
