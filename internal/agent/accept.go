package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// rejection is why an order is not followed.
type rejection struct {
	Reason     wire.RejectReason
	Detail     string
	RetryAfter time.Duration // 0: the host's backoff
}

func (r *rejection) Error() string { return fmt.Sprintf("%s: %s", r.Reason, r.Detail) }

// plan is a rollout's manifest that was verified, and the fleet document that
// completed it, when it needed one.
type plan struct {
	id       string
	manifest trust.Verified[fleet.Manifest]
	etag     string
	fleet    *trust.Verified[fleet.Fleet]
}

func (p plan) document() journal.Document {
	return journal.Document{Entry: p.manifest.Entry(), ETag: p.etag}
}

// raise sets the marks that accepting the plan leaves.
func (p plan) raise(m *trust.Marks) {
	m.Manifest = p.manifest.Mark().Higher(m.Manifest)
	if p.fleet != nil {
		m.Fleet = p.fleet.Mark().Higher(m.Fleet)
	}
}

// accept takes an order whose plan was verified. A *rejection says why not.
func (t *turn) accept(orderID string, p plan) error {
	s := t.next
	if s.find(p.id) != nil {
		return nil // offered again; its answer is in the outbox
	}
	if err := t.held(); err != nil {
		return err
	}
	if s.facts == nil || !s.self.Numbered {
		return &rejection{Reason: wire.RejectBusy, Detail: "the agent has just started"}
	}
	v := p.manifest
	h, err := lifecycle.New(t.r.cfg.MachineID, p.id, v.Doc(), v.PlanHash(), v.SignedAt())
	if err != nil {
		return &rejection{Reason: wire.RejectNotInManifest, Detail: err.Error()}
	}
	if err := t.quarantined(h); err != nil {
		return err
	}

	// A journal that was lost goes on above the numbers that the control plane has.
	h.Seq = s.self.LastSeqs[p.id]
	overtaken := s.waiting()
	prior := lifecycle.Prior(hostOf(s.live()), s.facts.Current)
	t.updateMarks(p.raise)
	ahead := s.self.Ahead
	t.updateSelf(func(self *journal.Self) { self.Accepted, self.Ahead = self.Accepted+1, nil })
	e := &entry{
		Rollout: journal.Rollout{
			Host:       h,
			Order:      s.self.Accepted,
			NeedsSlot:  inBudget(v.Doc(), t.r.cfg.MachineID),
			Compliance: v.Doc().ComplianceMode,
		},
		acked: h.Seq,
		since: t.now,
	}
	if err := e.wasFetchedAhead(ahead); err != nil {
		return err
	}
	s.rollouts = append(s.rollouts, e)
	t.writes = append(t.writes, func(tx *journal.Tx) error {
		if err := tx.SetAcked(p.id, h.Seq); err != nil {
			return err
		}
		return tx.PutDocument(p.id, p.document())
	})
	// First, because a new chain of records begins with the notice that says so.
	for _, n := range s.self.Notices {
		if err := t.event(p.id, n); err != nil {
			return err
		}
	}
	t.updateSelf(func(self *journal.Self) { self.Notices = nil })
	err = t.event(p.id, lifecycle.DispatchAck{
		CurrentClosureAtDispatch: s.facts.Current,
		PriorClosure:             prior,
		TargetClosure:            h.Target,
		PlanHash:                 h.PlanHash,
		Wave:                     h.Wave,
		OrderID:                  orderID,
	})
	if err != nil {
		return err
	}
	t.update(p.id, func(e *entry) { e.AckSeq = e.Host.Seq })

	// What was accepted before and has not touched the machine is overtaken now;
	// what is live stays watched until the newer one begins.
	for _, id := range overtaken {
		if err := t.event(id, lifecycle.WasSuperseded{By: p.id}); err != nil {
			return err
		}
	}
	t.forget()
	return nil
}

// refresh takes newer bytes of a plan that is already followed.
func (t *turn) refresh(p plan) error {
	e := t.next.find(p.id)
	if e == nil || e.Host.PlanHash != p.manifest.PlanHash() {
		return nil
	}
	t.updateMarks(p.raise)
	t.writes = append(t.writes, func(tx *journal.Tx) error { return tx.PutDocument(p.id, p.document()) })
	return nil
}

func inBudget(m *fleet.Manifest, host string) bool {
	return slices.ContainsFunc(m.DisruptionBudgets, func(b fleet.Budget) bool { return slices.Contains(b.Hosts, host) })
}

// signal answers the control plane's request to leave a rollout.
func (t *turn) signal(o wire.Order) error {
	e := t.next.find(o.RolloutID)
	if e == nil {
		return &rejection{Reason: wire.RejectNoManifest, Detail: "this host has no record of that rollout"}
	}
	if slices.Contains(e.Answered, o.OrderID) {
		return nil // offered again; its answer is in the outbox
	}
	if err := t.event(o.RolloutID, lifecycle.AnswerSignal(e.Host, o.OrderID, strings.ToValidUTF8(o.Reason[:min(len(o.Reason), maxSignalReason)], ""))); err != nil {
		return err
	}
	t.update(o.RolloutID, func(e *entry) {
		e.Answered = append(slices.Clone(e.Answered), o.OrderID)
		e.Answered = e.Answered[max(0, len(e.Answered)-keepAnswered):]
	})
	return nil
}

// keepAnswered is how many answered signals of a rollout are remembered, so that
// one that is delivered twice is answered once.
const keepAnswered = 16

// beginning is what must happen before an activation may begin; all zero when it
// has begun.
type beginning struct {
	wait    string              // why not yet
	on      wire.WaitingOn      // what is waited for
	unstage *lifecycle.Rollback // to be done first, in the rollout
	in      string              // that this names
}

// beginActivation makes an accepted rollout the one that changes the machine:
// prior is fixed, the older rollout is superseded, the activation has started,
// in one commit. The facts were read for this.
func (t *turn) beginActivation(rollout, method string, facts host.Facts) (beginning, error) {
	next := t.next.next()
	if next == nil || next.Host.Rollout != rollout {
		return beginning{}, fmt.Errorf("begin %s: it is not what comes next any more", rollout)
	}
	t.look(facts)
	if next.NeedsSlot && next.acked < next.AckSeq {
		return beginning{on: wire.WaitingOnAcknowledgement, wait: "the host is in a disruption budget"}, nil
	}
	live := t.next.live()
	takeover := lifecycle.TakeOver(hostOf(live), next.Host, observed(facts), method)
	if takeover.Wait != "" {
		b := beginning{on: wire.WaitingOnSwitchLock, wait: takeover.Wait, unstage: takeover.Unstage}
		if live != nil {
			b.in = live.Host.Rollout
		}
		return b, nil
	}
	for _, body := range takeover.Old {
		if err := t.event(live.Host.Rollout, body); err != nil {
			return beginning{}, err
		}
	}
	for _, body := range takeover.New {
		if err := t.event(rollout, body); err != nil {
			return beginning{}, err
		}
	}
	return beginning{}, nil
}
