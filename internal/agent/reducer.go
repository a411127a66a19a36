package agent

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/evidence"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

const (
	// inputQueue is how many inputs may wait; who has more waits itself. Those
	// that wait are one commit.
	inputQueue = 64

	// saveEvery is how often the running time of a rollout that has not ended is
	// saved when nothing else is.
	saveEvery = 5 * time.Minute

	// keepRollouts is how many rollouts are remembered at least. Of all but the
	// newest two only the record is kept once their events are stored.
	keepRollouts = 50
)

// errStopped answers inputs that came when the reducer had ended.
var errStopped = errors.New("the agent is stopping")

// reducer owns the state. Nothing that it waits for waits for it: it waits for
// the journal's disk, and for inputs.
type reducer struct {
	cfg     Config
	log     *slog.Logger
	key     ed25519.PrivateKey
	journal *journal.Journal

	inputs  chan input
	stop    chan struct{} // closed to end it
	stopped chan struct{} // closed when it has ended

	state     *state // only the reducer's goroutine
	published atomic.Pointer[state]

	changed *broadcast         // tells whoever waits for a new state
	wake    chan time.Duration // until the machine must be looked at again; 0: only on input
}

func newReducer(cfg Config, key ed25519.PrivateKey, j *journal.Journal, s *state) *reducer {
	r := &reducer{
		cfg:     cfg,
		log:     cfg.Log,
		key:     key,
		journal: j,
		inputs:  make(chan input, inputQueue),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		changed: newBroadcast(),
		wake:    make(chan time.Duration, 1),
	}
	r.publish(s)
	return r
}

// input is something that the reducer is told: a change to make within one turn.
type input struct {
	name  string
	apply func(*turn) error
	done  chan error // of size one
}

// submit hands the reducer a change and waits until it is committed. After an
// error nothing of it was, and what the change would have set must not be read.
func (r *reducer) submit(ctx context.Context, name string, apply func(*turn) error) error {
	in := input{name: name, apply: apply, done: make(chan error, 1)}
	select {
	case r.inputs <- in:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopped:
		return errStopped
	}
	select {
	case err := <-in.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopped:
		return errStopped
	}
}

// view is the last committed state. It is never changed.
func (r *reducer) view() *state { return r.published.Load() }

// run reduces inputs until it is told to stop, then saves the running times.
func (r *reducer) run() {
	defer close(r.stopped)
	for {
		select {
		case in := <-r.inputs:
			r.turn(r.waiting(in))
		case <-r.stop:
			r.turn([]input{{name: "stop", apply: (*turn).saveTimes, done: make(chan error, 1)}})
			return
		}
	}
}

// waiting gives an input and all that wait behind it.
func (r *reducer) waiting(first input) []input {
	batch := []input{first}
	for len(batch) < inputQueue {
		select {
		case in := <-r.inputs:
			batch = append(batch, in)
		default:
			return batch
		}
	}
	return batch
}

// turn reduces a batch of inputs to one commit.
func (r *reducer) turn(batch []input) {
	t := r.begin()
	verdicts := make([]error, len(batch))
	for i, in := range batch {
		before := t.save()
		if verdicts[i] = in.apply(t); verdicts[i] != nil {
			t.restore(before)
		}
	}
	t.settle()
	if err := r.commit(t); err != nil {
		r.log.Error("the journal took no commit; the inputs will come again", "inputs", len(batch), "err", err)
		for i := range verdicts {
			verdicts[i] = errors.Join(verdicts[i], err)
		}
		// What was seen needs no disk: with a full one probes and retries go on.
		same := *r.state
		same.facts, same.factsAt = t.next.facts, t.next.factsAt
		r.publish(&same)
		r.changed.tell()
	}
	for i, in := range batch {
		in.done <- verdicts[i]
	}
}

// commit makes a turn durable and known. After an error nothing has changed.
func (r *reducer) commit(t *turn) error {
	if t.dirty() {
		if t.marksChanged {
			// Before the commit that relies on them: whatever is lost later, nothing
			// older is accepted.
			if err := t.next.self.Marks.Save(r.cfg.MarksFile()); err != nil {
				return err
			}
			crashpoint.Here("agent/marks-saved", "the marks are in their file; the journal has nothing of what raised them")
		}
		if err := r.journal.Update(t.write); err != nil {
			return err
		}
		t.committed()
		t.tell(r.log)
	}
	r.publish(t.next)
	if t.dirty() || t.observed {
		r.changed.tell()
	}
	replace(r.wake, t.due)
	return nil
}

func (r *reducer) publish(s *state) {
	r.state = s
	r.published.Store(s)
}

// begin starts a turn on a copy of the state.
func (r *reducer) begin() *turn {
	next := *r.state
	next.rollouts = slices.Clone(next.rollouts)
	return &turn{r: r, now: time.Now(), next: &next, changed: map[string]bool{}}
}

// load reads the state of the journal.
func load(j *journal.Journal, now time.Time) (*state, error) {
	s := &state{}
	err := j.View(func(tx *journal.Tx) error {
		var err error
		if s.self, err = tx.Self(); err != nil {
			return err
		}
		all, err := tx.Rollouts()
		if err != nil {
			return err
		}
		dead, err := tx.DeadLetters()
		if err != nil {
			return err
		}
		for _, r := range all {
			e := &entry{Rollout: r, acked: tx.Acked(r.Host.Rollout), base: max(r.Active, r.Host.Active), since: now, trimmed: tx.First(r.Host.Rollout) == 0}
			for _, d := range dead {
				if d.Rollout == r.Host.Rollout {
					e.dead++
				}
			}
			s.rollouts = append(s.rollouts, e)
		}
		return nil
	})
	return s, err
}

// turn is one batch of inputs on its way to a commit.
type turn struct {
	r    *reducer
	now  time.Time
	next *state

	observation  *lifecycle.Observed // made for one of these inputs
	observed     bool                // one of these inputs was the observer's look
	changed      map[string]bool     // rollouts whose record must be written
	selfChanged  bool
	marksChanged bool // only with selfChanged
	events       []newEvent
	writes       []func(*journal.Tx) error
	due          time.Duration // until the state must be looked at again; 0 is: only on input
}

// newEvent is an event with its sealed envelope.
type newEvent struct {
	rollout  string
	event    lifecycle.Event
	envelope []byte
	from, to lifecycle.State
}

// saved is what an input that fails is undone to.
type saved struct {
	next                      state
	changed                   map[string]bool
	selfChanged, marksChanged bool
	events, writes            int
	observation               *lifecycle.Observed
}

func (t *turn) save() saved {
	s := saved{next: *t.next, changed: maps.Clone(t.changed), selfChanged: t.selfChanged, marksChanged: t.marksChanged, events: len(t.events), writes: len(t.writes), observation: t.observation}
	s.next.rollouts = slices.Clone(t.next.rollouts)
	return s
}

func (t *turn) restore(s saved) {
	*t.next, t.changed, t.selfChanged, t.marksChanged, t.observation = s.next, s.changed, s.selfChanged, s.marksChanged, s.observation
	t.events, t.writes = t.events[:s.events], t.writes[:s.writes]
}

func (t *turn) dirty() bool { return len(t.changed) > 0 || t.selfChanged || len(t.writes) > 0 }

// write puts the turn into the journal.
func (t *turn) write(tx *journal.Tx) error {
	if t.selfChanged {
		if err := tx.PutSelf(t.next.self); err != nil {
			return err
		}
	}
	for _, e := range t.next.rollouts {
		if t.changed[e.Host.Rollout] {
			if err := tx.PutRollout(e.Rollout); err != nil {
				return err
			}
		}
	}
	for _, write := range t.writes {
		if err := write(tx); err != nil {
			return err
		}
	}
	return nil
}

// tell logs what was committed: one line for each transition.
func (t *turn) tell(log *slog.Logger) {
	for _, e := range t.events {
		level := slog.LevelDebug
		if e.from != e.to {
			level = slog.LevelInfo
		}
		log.Log(context.Background(), level, "event",
			"rollout", e.rollout, "seq", e.event.Seq, "kind", string(e.event.Body.Kind()), "from", string(e.from), "state", string(e.to))
	}
}

// update replaces a rollout's entry by a changed copy, which will be written.
func (t *turn) update(rollout string, change func(*entry)) {
	t.changed[rollout] = true
	t.replaceEntry(rollout, func(e *entry) {
		change(e)
		e.Active = e.active(t.now)
	})
}

// replaceEntry replaces a rollout's entry by a changed copy whose record is as it
// was.
func (t *turn) replaceEntry(rollout string, change func(*entry)) {
	for i, e := range t.next.rollouts {
		if e.Host.Rollout == rollout {
			copied := *e
			change(&copied)
			t.next.rollouts[i] = &copied
		}
	}
}

// updateSelf changes the host's record, which will be written.
func (t *turn) updateSelf(change func(*journal.Self)) {
	change(&t.next.self)
	t.selfChanged = true
}

// updateMarks changes the marks, which will be written to their own file first.
func (t *turn) updateMarks(change func(*trust.Marks)) {
	t.updateSelf(func(s *journal.Self) { change(&s.Marks) })
	t.marksChanged = true
}

// event steps a rollout by what happened, and seals and numbers the event. What
// the state machine refuses does not happen, and has had no number.
func (t *turn) event(rollout string, body lifecycle.Body) error {
	e := t.next.find(rollout)
	if e == nil {
		return fmt.Errorf("%s in %s: this host has no such rollout", body.Kind(), rollout)
	}
	event := lifecycle.Event{Seq: e.Host.Seq + 1, Active: e.active(t.now), At: t.now.UTC().Round(0), Body: body}
	stepped, err := lifecycle.Step(e.Host, event)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", body.Kind(), rollout, err)
	}
	envelope, head, err := t.seal(rollout, event)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", body.Kind(), rollout, err)
	}
	t.updateMarks(func(m *trust.Marks) { m.ChainHead, m.ChainLength = head, m.ChainLength+1 })
	t.events = append(t.events, newEvent{rollout: rollout, event: event, envelope: envelope, from: e.Host.State, to: stepped.State})
	t.writes = append(t.writes, func(tx *journal.Tx) error { return tx.Append(rollout, event.Seq, envelope) })
	t.update(rollout, func(e *entry) { e.Host = stepped })
	t.outdate(body)
	t.quarantine(rollout)
	return nil
}

// outdate makes what was seen of the machine before an event about it worthless:
// a look that was taken during a switch must not be held against its outcome.
func (t *turn) outdate(body lifecycle.Body) {
	switch body.Kind() {
	case lifecycle.KindActivationStarted, lifecycle.KindActivationCompleted, lifecycle.KindActivationDeferred,
		lifecycle.KindActivationFailed, lifecycle.KindPersisted, lifecycle.KindRollbackComplete:
		t.observation = nil
		t.next.changes++
	case lifecycle.KindObserved:
		t.next.changes++
	}
}

// seal signs an event into the host's chain. It gives the envelope to send and
// the chain's new head.
func (t *turn) seal(rollout string, event lifecycle.Event) (envelope []byte, head string, err error) {
	raw, err := wire.EncodeEvent(event)
	if err != nil {
		return nil, "", err
	}
	record := evidence.Record{
		Hostname:     t.r.cfg.MachineID,
		RolloutID:    rollout,
		Event:        raw,
		AgentVersion: t.r.cfg.Version,
		RecordedAt:   t.now.UTC().Format(time.RFC3339),
		Prev:         cmp.Or(t.next.self.Marks.ChainHead, evidence.Genesis),
	}
	if t.next.facts != nil {
		record.BootID = t.next.facts.BootID
	}
	sealed, head, err := evidence.Seal(record, t.r.key)
	if err != nil {
		return nil, "", err
	}
	if evidence.CheckpointDue(t.next.self.Marks.ChainLength+1, event.Body.Kind()) {
		if sealed.SSHSig, err = evidence.SSHSign(head, t.r.key); err != nil {
			return nil, "", err
		}
	}
	envelope, err = json.Marshal(sealed)
	return envelope, head, err
}

// notice tells the control plane something about the host, in its newest rollout
// or, when there is none yet, in the first.
func (t *turn) notice(n lifecycle.Notice) error {
	if e := t.next.newest(); e != nil {
		return t.event(e.Host.Rollout, n)
	}
	t.updateSelf(func(s *journal.Self) { s.Notices = append(slices.Clone(s.Notices), n) })
	return nil
}

// settle lets time and observations have their effects, and finds out when to
// look again.
func (t *turn) settle() {
	t.due = 0
	for _, e := range []*entry{t.next.live(), t.next.next()} {
		if e == nil {
			continue
		}
		if wait := t.settleOne(e.Host.Rollout); wait > 0 && (t.due == 0 || wait < t.due) {
			t.due = wait
		}
	}
}

func (t *turn) settleOne(rollout string) time.Duration {
	for {
		e := t.next.find(rollout)
		now := lifecycle.Now{Active: e.active(t.now), Observation: t.observation}
		if t.next.facts == nil {
			return 0 // nothing is decided about a machine that was not looked at
		}
		now.BootID = t.next.facts.BootID
		body, wait := lifecycle.Due(e.Host, now)
		if body == nil {
			return wait
		}
		if err := t.event(rollout, body); err != nil {
			t.r.log.Error("what became true was refused", "rollout", rollout, "err", err)
			return saveEvery
		}
	}
}

// saveTimes writes the running time of every rollout that has not ended.
func (t *turn) saveTimes() error {
	for _, e := range t.next.rollouts {
		if !e.Host.Terminal() {
			t.update(e.Host.Rollout, func(*entry) {})
		}
	}
	return nil
}

// replace puts v into a slot of size one, in place of what nobody has taken.
func replace[T any](slot chan T, v T) {
	for {
		select {
		case slot <- v:
			return
		default:
		}
		select {
		case <-slot:
		default:
		}
	}
}
