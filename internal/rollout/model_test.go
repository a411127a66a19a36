package rollout_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/rollout"
)

var (
	modelChannels = []string{"edge", "stable"}
	modelHosts    = []string{"a", "b", "c", "d", "e", "f", "g", "h"}
)

// model drives a world at random, and holds every planned action against what
// it means, counted in other ways than the planner counts.
type model struct {
	*story
	online map[string]bool
	refs   int
	log    []func(w *rollout.World) // all that was folded into the world

	replayed map[string]int64 // running times of the rebuild
}

// TestModel: over random worlds and histories no budget is exceeded, no wave
// overtaken, nothing dispatched that is halted or paused; the same world gives
// the same plan; the log rebuilds the world; and once faults stop, all finishes.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{story: newStory(nil), online: map[string]bool{}}
		for _, h := range modelHosts {
			m.online[h] = true
		}
		m.release(t)
		t.Repeat(map[string]func(*rapid.T){
			"release":    m.release,
			"time":       m.time,
			"connection": m.connection,
			"heartbeat":  m.heartbeat,
			"host":       m.host,
			"host again": m.host,
			"reject":     m.reject,
			"operator":   m.operator,
			"":           m.plan,
		})
		m.rebuild(t)
		m.settle(t)
	})
}

func (m *model) release(t *rapid.T) {
	m.refs++
	b := newBuilder(fmt.Sprint(m.refs), rapid.IntRange(1, 2).Draw(t, "attempt"), m.now)
	for _, c := range modelChannels {
		b.channel(c, func(p *fleet.Policy) {
			p.HaltAfter = fleet.HaltAfter{Hosts: rapid.IntRange(1, 3).Draw(t, "haltAfter")}
			p.OnNewRelease = rapid.SampledFrom([]string{fleet.OnNewSupersede, fleet.OnNewQueue}).Draw(t, "onNewRelease")
			p.Reboot = rapid.SampledFrom([]string{fleet.RebootManual, fleet.RebootInWindow}).Draw(t, "reboot")
			p.DeferredAdvances = rapid.Bool().Draw(t, "deferredAdvances")
		})
	}
	for i, h := range modelHosts {
		if rapid.IntRange(0, 9).Draw(t, "declared") == 0 {
			continue
		}
		closure := fleet.Closure(h + "-" + b.ref)
		if rapid.IntRange(0, 3).Draw(t, "shared closure") == 0 {
			closure = "shared"
		}
		b.host(h, modelChannels[i%2], rapid.IntRange(0, 2).Draw(t, "wave"), closure)
	}
	for range 2 {
		hosts := rapid.SliceOfNDistinct(rapid.SampledFrom(modelHosts), 2, 6, rapid.ID[string]).Draw(t, "budget hosts")
		slices.Sort(hosts)
		budget := fleet.Budget{Hosts: hosts}
		if rapid.Bool().Draw(t, "percent") {
			budget.MaxInFlightPct = ptr(rapid.IntRange(1, 60).Draw(t, "pct"))
		} else {
			budget.MaxInFlight = ptr(rapid.IntRange(1, 3).Draw(t, "max"))
		}
		b.budgets = append(b.budgets, budget)
	}
	b.edges = []fleet.Edge{{Gates: "a", Gated: "c"}, {Gates: "b", Gated: "d"}}
	b.channelEdges = []fleet.Edge{{Gates: "edge", Gated: "stable"}}
	rel := b.build()
	for _, c := range modelChannels { // an edge to a later wave is refused at release
		if man, ok := rel.Manifests[c]; ok {
			man.Doc.Edges = slices.DeleteFunc(slices.Clone(b.edges), func(e fleet.Edge) bool {
				first, _ := man.Doc.Target(e.Gates)
				then, _ := man.Doc.Target(e.Gated)
				return first.WaveIndex > then.WaveIndex
			})
		}
	}
	m.fold(func(w *rollout.World) { rollout.Publish(w, rel) })
}

func (m *model) fold(f func(*rollout.World)) {
	f(m.w)
	m.log = append(m.log, f)
}

func (m *model) time(t *rapid.T) {
	m.pass(time.Duration(rapid.SampledFrom([]int{1, 5, 30, 60 * 12}).Draw(t, "minutes")) * time.Minute)
}

// pass lets time pass; who is online is heard.
func (m *model) pass(by time.Duration) {
	m.now = m.now.Add(by)
	m.w.Ready += by
	for h, online := range m.online {
		if online {
			m.machine(h).Seen = m.w.Ready
		}
	}
}

func (m *model) connection(t *rapid.T) {
	h := rapid.SampledFrom(modelHosts).Draw(t, "host")
	m.online[h] = rapid.IntRange(0, 3).Draw(t, "online") > 0
	m.machine(h).Parked = m.online[h] && rapid.IntRange(0, 3).Draw(t, "parked") > 0
	if m.online[h] {
		m.machine(h).Seen = m.w.Ready
	}
}

func (m *model) heartbeat(t *rapid.T) { m.beat(rapid.SampledFrom(modelHosts).Draw(t, "host")) }

func (m *model) beat(host string) {
	if !m.online[host] {
		return
	}
	mc := m.machine(host)
	mc.Seen, mc.HeartbeatAt, mc.LastSeq = m.w.Ready, m.w.Ready, map[string]int64{}
	for id, r := range m.w.Rollouts {
		if h := r.Host(host); h != nil {
			mc.LastSeq[id] = h.Seq
		}
	}
}

// moves are what a host may do next, by state.
var moves = map[lifecycle.State][]string{
	lifecycle.Pending:    {"ack"},
	lifecycle.Activating: {"start", "start", "live", "live", "staged", "fetch-failed", "switch-failed", "signal obeyed"},
	lifecycle.Deferred:   {"signal obeyed"},
	lifecycle.Soaking:    {"converge", "converge", "probe pass", "probe fail", "give-up", "signal obeyed"},
	lifecycle.Converged:  {"result fail", "result pass"},
	lifecycle.Failed:     {"reverted"},
}

func (m *model) host(t *rapid.T) {
	var rows []*rollout.HostRow
	for _, r := range m.byOpening() {
		for i := range r.Hosts {
			h := &r.Hosts[i]
			if m.online[h.Hostname] && (h.State != lifecycle.Pending || h.Order != nil || h.Orders > 0) && len(moves[h.State]) > 0 {
				rows = append(rows, h)
			}
		}
	}
	if len(rows) == 0 {
		t.Skip("nobody has anything to do")
	}
	h := rapid.SampledFrom(rows).Draw(t, "row")
	m.do(h, rapid.SampledFrom(moves[h.State]).Draw(t, "move"))
}

// do lets a host do something, if it is legal and, for an acknowledgement,
// allowed; all of it is logged.
func (m *model) do(h *rollout.HostRow, move string) {
	if move == "ack" && !rollout.MayAcknowledge(m.w, h.Rollout, h.Hostname, lifecycle.DispatchAck{}) {
		return
	}
	var words []string
	for i, at := 0, 0; i <= len(move); i++ {
		if i == len(move) || move[i] == ' ' {
			words = append(words, move[at:i])
			at = i + 1
		}
	}
	now, id, host, seq := m.now, h.Rollout, h.Hostname, h.Seq
	_ = m.event(id, host, words[0], words[1:]...) // one that is not legal changes nothing but the number
	if m.w.Rollouts[id].Host(host).Seq == seq {
		return
	}
	m.log = append(m.log, func(w *rollout.World) {
		s := &story{w: w, now: now, active: m.replayed}
		_ = s.event(id, host, words[0], words[1:]...)
	})
}

func (m *model) reject(t *rapid.T) {
	for _, r := range m.byOpening() {
		for i := range r.Hosts {
			if h := &r.Hosts[i]; h.Order != nil && m.online[h.Hostname] && rapid.Bool().Draw(t, "rejects") {
				m.try(rollout.Rejected{Rollout: r.ID, Host: h.Hostname, OrderID: h.Order.ID, Reason: "held", RetryAfter: 20 * time.Minute})
				return
			}
		}
	}
}

func (m *model) operator(t *rapid.T) {
	channel := rapid.SampledFrom(modelChannels).Draw(t, "channel")
	host := rapid.SampledFrom(modelHosts).Draw(t, "host")
	ch := m.w.Channels[channel]
	if ch == nil || ch.Newest == "" {
		return
	}
	r := m.w.Rollouts[ch.Newest]
	m.try(rapid.SampledFrom([]rollout.Body{
		rollout.Paused{Channel: channel}, rollout.Resumed{Channel: channel}, rollout.Resumed{Channel: channel},
		rollout.Accepted{Rollout: r.ID, Hosts: []string{host}}, rollout.Accepted{Rollout: r.ID, Hosts: []string{host}},
		rollout.Forced{Rollout: r.ID, Wave: r.Wave}, rollout.RolledBack{Rollout: r.ID},
		rollout.QuarantineCleared{Channel: channel, Closure: "shared"},
		rollout.Forgotten{Host: host}, rollout.Remembered{Host: host},
		rollout.Recovering{Why: "test"}, rollout.Recovered{}, rollout.Recovered{},
	}).Draw(t, "operation"))
}

// try applies an action when it fits.
func (m *model) try(b rollout.Body) error {
	a := rollout.Action{At: m.now, Ready: m.w.Ready, Body: b}
	err := rollout.Apply(m.w, a)
	if err == nil {
		m.log = append(m.log, func(w *rollout.World) { _ = rollout.Apply(w, through(a)) })
	}
	return err
}

// through takes an action through its JSON form, as the log does.
func through(a rollout.Action) rollout.Action {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	var out rollout.Action
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// plan plans until nothing is left, holding every action against its rule.
func (m *model) plan(t *rapid.T) {
	for range 200 {
		actions := rollout.Plan(m.w, m.now)
		if again := rollout.Plan(m.w, m.now); !reflect.DeepEqual(actions, again) {
			t.Fatalf("the same world gave two plans:\n%v\n%v", actions, again)
		}
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			m.check(t, a.Body)
			if err := m.try(a.Body); err != nil {
				t.Fatalf("a planned action does not fit: %v", err)
			}
		}
	}
	t.Fatal("planning does not come to an end")
}

func (m *model) check(t *rapid.T, b rollout.Body) {
	switch a := b.(type) {
	case rollout.Delivered:
		m.checkDelivered(t, a)
	case rollout.Advanced:
		r := m.w.Rollouts[a.Rollout]
		m.checkWave(t, r, r.Wave)
	case rollout.Moved:
		r := m.w.Rollouts[a.Rollout]
		if a.To == rollout.Terminal {
			for i := range r.Hosts {
				m.checkEnded(t, r, &r.Hosts[i])
			}
			m.checkWave(t, r, r.Hosts[len(r.Hosts)-1].Wave)
		}
	}
}

func (m *model) checkDelivered(t *rapid.T, a rollout.Delivered) {
	r := m.w.Rollouts[a.Rollout]
	h := r.Host(a.Host)
	switch {
	case m.w.Recovery != nil:
		t.Fatalf("an order to %s while recovering", a.Host)
	case m.w.Channels[r.Channel].Paused != nil:
		t.Fatalf("an order to %s of a paused channel", a.Host)
	case m.w.Channels[r.Channel].Newest != r.ID:
		t.Fatalf("an order to %s of the older rollout %s", a.Host, r.ID)
	case r.State == rollout.Failed || r.State == rollout.Reverted:
		t.Fatalf("an order to %s of the halted rollout %s", a.Host, r.ID)
	case h.Wave > r.Wave:
		t.Fatalf("an order to %s of wave %d in wave %d", a.Host, h.Wave, r.Wave)
	case !m.machine(a.Host).Parked:
		t.Fatalf("an order to %s, which has no poll", a.Host)
	}
	for _, e := range r.Manifest.Edges {
		if e.Gated == a.Host {
			if first := r.Host(e.Gates); first != nil && first.State != lifecycle.Converged {
				m.checkEnded(t, r, first)
			}
		}
	}
	for _, b := range r.Manifest.DisruptionBudgets {
		if slices.Contains(b.Hosts, a.Host) && m.out(b, a.Host) >= b.Limit() {
			t.Fatalf("an order to %s while %d of %v are out of service: the budget is %d", a.Host, m.out(b, a.Host), b.Hosts, b.Limit())
		}
	}
}

// out counts the budget's other hosts that are, or may be, out of service.
func (m *model) out(b fleet.Budget, but string) int {
	n := 0
	for _, host := range b.Hosts {
		_, forgotten := m.w.Forgotten[host]
		if _, declared := m.w.Release.Fleet.Hosts[host]; host == but || forgotten || !declared {
			continue
		}
		out := false
		for _, r := range m.w.Rollouts {
			h := r.Host(host)
			if h == nil {
				continue
			}
			windowed := h.State == lifecycle.Deferred && h.Policy.Reboot == fleet.RebootInWindow
			owed := h.State == lifecycle.Failed && h.RollbackOwed
			out = out || h.Order != nil || h.Lost != nil || windowed || owed ||
				h.State == lifecycle.Activating || h.State == lifecycle.Soaking
		}
		if out {
			n++
		}
	}
	return n
}

// checkWave holds a wave that is called done against the rule.
func (m *model) checkWave(t *rapid.T, r *rollout.Rollout, wave int) {
	converged := 0
	for i := range r.Hosts {
		if h := &r.Hosts[i]; h.Wave == wave {
			m.checkEnded(t, r, h)
			if h.State == lifecycle.Converged {
				converged++
			}
		}
	}
	if converged == 0 && (r.Forced == nil || *r.Forced != wave) {
		t.Fatalf("wave %d of %s passed without anybody Converged", wave, r.ID)
	}
}

// checkEnded fails when the host is still to be waited for.
func (m *model) checkEnded(t *rapid.T, r *rollout.Rollout, h *rollout.HostRow) {
	_, forgotten := m.w.Forgotten[h.Hostname]
	_, declared := m.w.Release.Fleet.Hosts[h.Hostname]
	staged := h.State == lifecycle.Deferred && h.Policy.DeferredAdvances
	if !h.Terminal() && h.Skip == nil && h.Accepted == nil && !forgotten && declared && !staged {
		t.Fatalf("%s of %s is passed over: it is %s", h.Hostname, r.ID, h.State)
	}
}

// rebuild folds the log into a new world, which must come out the same.
func (m *model) rebuild(t *rapid.T) {
	m.replayed = map[string]int64{}
	w := rollout.NewWorld()
	for _, f := range m.log {
		f(w)
	}
	if got, want := canonical(w), canonical(m.w); got != want {
		t.Fatalf("the rebuilt world differs:\n%s\nwas\n%s", got, want)
	}
	w.Ready, w.Machines = m.w.Ready, m.w.Machines
	if got, want := rollout.Plan(w, m.now), rollout.Plan(m.w, m.now); !reflect.DeepEqual(got, want) {
		t.Fatalf("the rebuilt world plans %v, not %v", got, want)
	}
}

// canonical is what of a world has to survive a rebuild.
func canonical(w *rollout.World) string {
	type full struct {
		*rollout.Rollout
		Rows []rollout.HostRow
	}
	plain := *w
	plain.Ready, plain.Machines = 0, nil
	rows := map[string]full{}
	for id, r := range w.Rollouts {
		rows[id] = full{r, r.Hosts}
	}
	b, err := json.MarshalIndent([]any{plain, rows}, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// settle stops the faults: everybody is online, succeeds, and an operator
// resumes what was halted. Then the newest rollout of every channel finishes.
func (m *model) settle(t *rapid.T) {
	m.try(rollout.Recovered{})
	for _, c := range modelChannels {
		m.try(rollout.Resumed{Channel: c})
		m.try(rollout.QuarantineCleared{Channel: c, Closure: "shared"})
	}
	for range 80 {
		for _, h := range modelHosts {
			m.online[h] = true
			m.beat(h)
			m.machine(h).Parked = true
		}
		m.pass(time.Minute)
		m.plan(t)
		for _, r := range m.byOpening() {
			m.resume(r)
			for i := range r.Hosts {
				m.succeed(&r.Hosts[i])
			}
		}
		m.plan(t)
	}
	for c, ch := range m.w.Channels {
		if r := m.w.Rollouts[ch.Newest]; r != nil && r.State != rollout.Terminal {
			t.Fatalf("rollout %s of channel %s does not finish:\n%s", r.ID, c, m.show())
		}
	}
}

// resume is an operator who accepts every failure and needs no proof.
func (m *model) resume(r *rollout.Rollout) {
	var failed []string
	for i := range r.Hosts {
		if h := &r.Hosts[i]; h.Accepted == nil && (h.State == lifecycle.Failed || h.State == lifecycle.Reverted) {
			failed = append(failed, h.Hostname)
		}
	}
	if len(failed) > 0 || r.State == rollout.Failed || r.State == rollout.Reverted {
		m.try(rollout.Accepted{Rollout: r.ID, Hosts: failed})
	}
	m.try(rollout.Forced{Rollout: r.ID, Wave: r.Wave})
}

// succeed lets the host do what leads to a good end.
func (m *model) succeed(h *rollout.HostRow) {
	switch {
	case h.Signal != nil && h.Signal.Sent:
		m.do(h, "signal refused")
	case h.State == lifecycle.Pending && h.Order != nil:
		m.do(h, "ack")
	case h.State == lifecycle.Activating && !h.Mutated:
		m.do(h, "start")
	case h.State == lifecycle.Activating:
		m.do(h, "live")
	case h.State == lifecycle.Deferred:
		m.do(h, "booted")
	case h.State == lifecycle.Soaking:
		for _, p := range h.Probes {
			if p.Status != lifecycle.Pass {
				m.do(h, "result pass")
			}
		}
		m.do(h, "converge")
	case h.State == lifecycle.Failed && h.RollbackOwed:
		m.do(h, "reverted")
	case h.State == lifecycle.Converged:
		for _, p := range h.Probes {
			if p.Status != lifecycle.Pass {
				m.do(h, "result pass")
			}
		}
	}
}

func (m *model) byOpening() []*rollout.Rollout {
	var rs []*rollout.Rollout
	for _, r := range m.w.Rollouts {
		rs = append(rs, r)
	}
	slices.SortFunc(rs, func(a, b *rollout.Rollout) int { return int(a.Opening - b.Opening) })
	return rs
}
