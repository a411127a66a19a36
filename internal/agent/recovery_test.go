package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/guard"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/dirhost"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// The values of the columns, in the order of docs/recovery.md.
var (
	allStates = []string{
		foundIdle, foundFetching, foundSwitching, foundSwitchingAgain, foundStaging, foundStagingAgain, foundDeferred,
		foundSoaking, foundSoakingAgain, foundPersisted, foundRollingBack, foundConverged, foundEnded,
	}
	allBoots    = []string{bootSame, bootNew}
	allCurrents = []string{runsPrior, runsTarget, runsOther, runsNothing}
	allUnits    = []activation.Found{
		activation.NeverStarted, activation.Running, activation.EndedOK, activation.Refused,
		activation.EndedBadly, activation.Gone, activation.GoneTwice,
	}
	allGuards = []string{guardNone, guardActed}
)

// impossible says why no host shows a combination; "" when one may.
func impossible(s situation) string {
	unit := activation.Found(s.unit)
	switching := s.state == foundSwitching || s.state == foundSwitchingAgain
	switch {
	case (s.state == foundIdle) != (s.current == runsNothing):
		return "only without a rollout there is nothing to compare with"
	case s.state == foundIdle && s.boot == bootNew:
		return "without a rollout no earlier boot is known"
	case unit == activation.NeverStarted:
		return ""
	case s.boot == bootNew:
		return "a boot ends all units, and marks of another boot do not count"
	case s.state == foundIdle || s.state == foundFetching || s.state == foundStaging || s.state == foundStagingAgain:
		return "nothing is made live, so there is no unit that does it"
	case unit == activation.Running && s.guard == guardActed:
		return "a guard stops the switch, and waits for the end of its own rollback"
	case unit == activation.Running && !switching && s.state != foundRollingBack:
		return "these states are committed after the end of the switch"
	case s.state == foundRollingBack && (unit == activation.Refused || unit == activation.Gone || unit == activation.GoneTwice):
		return "a rollback leaves no mark; what is not there was never started"
	case unit == activation.Refused && (s.current != runsPrior || !switching && s.state != foundDeferred):
		return "what ran before still runs, and the target was staged"
	case s.state == foundDeferred && (unit == activation.EndedOK || unit == activation.EndedBadly):
		return "a target is staged when nothing makes it live, or when its switch refused"
	case unit == activation.EndedBadly && !switching && s.state != foundRollingBack && s.state != foundEnded:
		return "the switch of a target that was live has ended well"
	}
	return ""
}

func situations() []situation {
	var all []situation
	for _, state := range allStates {
		for _, boot := range allBoots {
			for _, current := range allCurrents {
				for _, unit := range allUnits {
					for _, guard := range allGuards {
						s := situation{state: state, boot: boot, current: current, unit: string(unit), guard: guard}
						if impossible(s) == "" {
							all = append(all, s)
						}
					}
				}
			}
		}
	}
	return all
}

// documented is a row of docs/recovery.md. Cells with alternatives hold them all.
type documented struct {
	recoveryRow
	starts, events, then []string
	because              string
}

func readRecoveryTable(t *testing.T) []documented {
	t.Helper()
	text, err := os.ReadFile("../../docs/recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []documented
	for line := range strings.Lines(string(text)) {
		if !regexp.MustCompile(`^\| R\d\d \|`).MatchString(line) {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 10 {
			t.Fatalf("%d cells in %s", len(cells), line)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		or := func(cell string) []string { return strings.Split(cell, " or ") }
		rows = append(rows, documented{recoveryRow{cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]}, or(cells[6]), or(cells[7]), or(cells[8]), cells[9]})
	}
	return rows
}

// TestRecoveryTableIsWhole: the page covers what any host can show, each situation
// once, and the rows that the agent logs are those of the page.
func TestRecoveryTableIsWhole(t *testing.T) {
	page := readRecoveryTable(t)
	var rows []recoveryRow
	for _, d := range page {
		rows = append(rows, d.recoveryRow)
		if !strings.HasSuffix(d.because, ".") {
			t.Errorf("%s gives no reason", d.id)
		}
	}
	if !slices.Equal(rows, recoveryRows) {
		t.Errorf("the page has other rows than the agent:\n%v\n%v", rows, recoveryRows)
	}
	met := map[string]bool{}
	for _, s := range situations() {
		var ids []string
		for _, r := range rows {
			if r.matches(s) {
				ids = append(ids, r.id)
			}
		}
		if len(ids) != 1 {
			t.Errorf("%+v has the rows %v", s, ids)
			continue
		}
		met[ids[0]] = true
		if got := s.row(); got != ids[0] {
			t.Errorf("%+v is logged as %s, and is %s", s, got, ids[0])
		}
	}
	for _, r := range rows {
		if !met[r.id] {
			t.Errorf("%s is no situation", r.id)
		}
		for _, column := range []struct {
			cell   string
			values []string
		}{{r.state, allStates}, {r.boot, allBoots}, {r.current, allCurrents}, {r.unit, names(allUnits)}, {r.guard, allGuards}} {
			for value := range strings.SplitSeq(column.cell, ", ") {
				if value != "any" && !slices.Contains(column.values, value) {
					t.Errorf("%s: %q is no value", r.id, value)
				}
			}
		}
	}
}

func names(units []activation.Found) []string {
	var all []string
	for _, u := range units {
		all = append(all, string(u))
	}
	return all
}

// scene is a situation with what the table does not tell apart.
type scene struct {
	situation
	way string // one of several ways into it
}

// scenes are all situations to build. Where a row makes no difference because the
// code never looks, one value stands for the others.
func scenes() []scene {
	var all []scene
	for _, s := range situations() {
		looksAtUnit := s.state == foundSwitching || s.state == foundSwitchingAgain || s.state == foundRollingBack
		if s.guard == guardActed && (s.unit != string(activation.NeverStarted) || s.current == runsOther || s.boot == bootNew && s.current == runsTarget) {
			continue
		}
		if !looksAtUnit && s.unit != string(activation.NeverStarted) && s.unit != string(activation.EndedOK) && s.unit != string(activation.Refused) {
			continue
		}
		for _, way := range ways(s) {
			all = append(all, scene{s, way})
		}
	}
	return all
}

func ways(s situation) []string {
	begun := strings.HasPrefix(s.state, foundSwitching) || strings.HasPrefix(s.state, foundStaging) || s.state == foundDeferred
	switch {
	case s.state == foundEnded:
		return []string{"Reverted", "Failed", "Superseded"}
	case s.guard == guardActed:
	case strings.HasPrefix(s.state, foundStaging) && s.boot == bootSame && s.current == runsPrior:
		return []string{"", "superseded", "the boot loader is being written"}
	case begun && s.current == runsPrior && s.unit == string(activation.NeverStarted):
		return []string{"", "superseded"}
	case begun && s.boot == bootSame && s.current == runsPrior && s.unit == string(activation.EndedOK):
		return []string{"", "superseded"}
	case begun && s.unit == string(activation.Refused):
		return []string{"", "superseded", "a check failed"}
	case strings.HasPrefix(s.state, foundSwitching) && s.unit == string(activation.Running):
		return []string{"", "not recorded"}
	case s.state == foundRollingBack && s.boot == bootSame && s.unit == string(activation.NeverStarted):
		return []string{"the switch ended badly", "in the soak", "the switch runs"}
	}
	return []string{""}
}

func (s scene) String() string {
	text := fmt.Sprintf("%s, %s boot, %s, unit %s, guard %s", s.state, s.boot, s.current, s.unit, s.guard)
	if s.way != "" {
		text += ", " + s.way
	}
	return text
}

// TestRecovery builds every situation, starts an agent in it, and compares what
// follows with the page.
func TestRecovery(t *testing.T) {
	page := readRecoveryTable(t)
	stage := newRecoveryStage(t)
	for _, row := range page {
		t.Run(row.id, func(t *testing.T) {
			t.Parallel()
			var seen sightings
			for _, s := range scenes() {
				if !row.matches(s.situation) {
					continue
				}
				seen.scenes++
				t.Run(s.String(), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { stage.play(t, s, row, &seen) })
				})
			}
			if t.Failed() {
				return
			}
			if seen.scenes == 0 {
				t.Fatal("nothing was played")
			}
			seen.all(t, "starts", row.starts, seen.starts)
			seen.all(t, "events", row.events, seen.events)
			seen.all(t, "then", row.then, seen.then)
		})
	}
}

// sightings are what the scenes of a row have shown.
type sightings struct {
	scenes               int
	starts, events, then []string
}

// all fails when an alternative of a cell was never seen.
func (*sightings) all(t *testing.T, column string, want, seen []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(seen, w) {
			t.Errorf("%s: %q was never seen", column, w)
		}
	}
}

// recoveryStage is what all scenes have in common: a machine whose store has all
// systems, and an agent's files.
type recoveryStage struct {
	machine, files       string // folders to be copied
	prior, target, other fleet.Closure
	before               fleet.Closure // that of a superseded rollout
	keys                 []string
}

func newRecoveryStage(t *testing.T) *recoveryStage {
	t.Helper()
	cache := hosttest.NewCache(t)
	s := &recoveryStage{files: t.TempDir(), keys: cache.Keys}
	s.prior, s.target = cache.Closure("v1", hosttest.Obey), cache.Closure("v2", hosttest.Obey)
	s.other, s.before = cache.Closure("other", hosttest.Obey), cache.Closure("before", hosttest.Obey)
	m := cache.NewMachine(s.prior)
	s.machine = m.Dir()
	for _, c := range []fleet.Closure{s.target, s.other, s.before} {
		if err := m.Fetch(t.Context(), cache.Fetch("all", c)); err != nil {
			t.Fatal(err)
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	release, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pinned := map[string]any{"algorithm": "ed25519", "public": base64.StdEncoding.EncodeToString(release)}
	trust, err := json.Marshal(map[string]any{
		"schemaVersion": 1, "ciReleaseKey": map[string]any{"current": pinned}, "cacheKeys": cache.Keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(s.files, "host_key"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(filepath.Join(s.files, "trust.json"), trust, 0o600),
		os.Mkdir(filepath.Join(s.files, "state"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// play is one scene: the last agent's journal is made by a reducer of its own, the
// machine is made what the scene wants, and an agent is started.
func (stage *recoveryStage) play(t *testing.T, s scene, row documented, seen *sightings) {
	p := newRecoveryPlay(t, stage, s)
	p.build()
	events := p.start()
	log := p.stop()

	var lines []map[string]any
	for line := range strings.Lines(log) {
		var l map[string]any
		if json.Unmarshal([]byte(line), &l) == nil && l["msg"] == "found after the start" {
			lines = append(lines, l)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("it says %d times what it found\n%s", len(lines), log)
	}
	for key, want := range map[string]string{"row": row.id, "state": s.state, "boot": s.boot, "current": s.current, "unit": s.unit, "guard": s.guard} {
		if got := lines[0][key]; got != want {
			t.Errorf("it found %s %v, want %s", key, got, want)
		}
	}
	check := func(column, got string, want []string, all *[]string) {
		*all = append(*all, got)
		if !slices.Contains(want, got) {
			t.Errorf("%s: %q, want %q", column, got, want)
		}
	}
	check("starts", p.started(), row.starts, &seen.starts)
	check("events", cmp.Or(strings.Join(p.kinds(events), ", "), "–"), row.events, &seen.events)
	check("then", p.state(), row.then, &seen.then)
	if !t.Failed() {
		p.checkMore(row.id)
	}
	if t.Failed() {
		t.Log(log)
	}
}

// recoveryPlay is one scene under way.
type recoveryPlay struct {
	*recoveryStage
	t   *testing.T
	s   scene
	cfg Config

	m       *dirhost.Machine
	runner  *dirhost.Functions
	journal *journal.Journal
	reducer *reducer
	built   int64         // number of the last event of the agent before
	letGo   chan struct{} // closed: programs that run may end
	exit    int           // of the next program

	mu      sync.Mutex
	playing bool     // the agent under test has started
	runs    []string // since then
	logged  bytes.Buffer
}

func (p *recoveryPlay) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logged.Write(b)
}

func (p *recoveryPlay) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func newRecoveryPlay(t *testing.T, stage *recoveryStage, s scene) *recoveryPlay {
	dir := t.TempDir()
	p := &recoveryPlay{recoveryStage: stage, t: t, s: s, letGo: make(chan struct{})}
	p.must(os.CopyFS(filepath.Join(dir, "machine"), os.DirFS(stage.machine)))
	p.must(os.CopyFS(filepath.Join(dir, "files"), os.DirFS(stage.files)))
	file := func(name string) string { return filepath.Join(dir, "files", name) }
	p.must(os.Chmod(file("host_key"), 0o600))
	p.cfg = Config{
		MachineID: "web-01", PollInterval: time.Minute, StateDir: file("state"), TrustFile: file("trust.json"),
		ControlPlane:   &url.URL{Scheme: "https", Host: "cp.test:443"},
		ClientCertFile: file("none.pem"), ClientKeyFile: file("host_key"), SSHHostKeyFile: file("host_key"), HealthChecksFile: file("none.json"),
		RenewalThreshold: 0.5, ClockPolicy: ClockTrust, Guard: []string{"/agent"}, CacheURLs: []string{"http://cache.test"},
		Log:   slog.New(slog.NewJSONHandler(p, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Clock: func() ClockState { return ClockState{Synchronised: true} },
	}
	p.runner = &dirhost.Functions{Program: p.program}
	t.Cleanup(func() { p.runner.Close() })
	var err error
	p.m, err = dirhost.Open(filepath.Join(dir, "machine"), dirhost.Options{Runner: p.runner, Dial: noRoute})
	p.must(err)
	return p
}

func noRoute(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }

// program stands in for switch programs, and for a guard that only watches.
func (p *recoveryPlay) program(ctx context.Context, u dirhost.Unit, out *os.File) int {
	if u.Program == p.cfg.Guard[0] {
		if _, err := guard.FilesOf(p.m, p.cfg.StateDir).Watch(p.m.Clock()); err != nil {
			return 1
		}
		<-ctx.Done()
		return 0
	}
	c := fleet.Closure(filepath.Base(filepath.Dir(filepath.Dir(u.Program))))
	p.mu.Lock()
	playing := p.playing
	if playing {
		p.runs = append(p.runs, string(c)+" "+u.Args[0])
	}
	p.mu.Unlock()
	if !playing {
		select { // of the agent before: it ends as the scene wants
		case <-p.letGo:
		case <-ctx.Done():
			return 143
		}
		if p.exit == 1 {
			fmt.Fprintln(out, "Pre-switch check 'disk' failed")
		}
		if p.exit != 0 {
			return p.exit
		}
	}
	if u.Args[0] == string(host.ActionBoot) {
		p.bootsInto(c)
	} else {
		p.makeLive(c)
	}
	return 0
}

func (p *recoveryPlay) makeLive(c fleet.Closure) {
	link := filepath.Join(p.m.Dir(), "run/current-system")
	if err := errors.Join(os.Remove(link), os.Symlink("../nix/store/"+string(c), link)); err != nil {
		p.t.Error(err)
	}
}

func (p *recoveryPlay) bootsInto(c fleet.Closure) {
	if err := os.WriteFile(filepath.Join(p.m.Dir(), "boot/default"), []byte(c.Path()+"\n"), 0o644); err != nil {
		p.t.Error(err)
	}
}

// happen commits events of the agent before.
func (p *recoveryPlay) happen(bodies ...lifecycle.Body) {
	p.t.Helper()
	var inputs []func(*turn) error
	for _, b := range bodies {
		inputs = append(inputs, happens(b))
	}
	p.must(errors.Join(reduce(p.t, p.reducer, inputs...)...))
}

func (p *recoveryPlay) mark(s activation.Step, m activation.Mark) {
	p.t.Helper()
	raw, err := json.Marshal(m)
	p.must(err)
	reduce(p.t, p.reducer, func(t *turn) error {
		t.update(id, func(e *entry) {
			steps := map[string]json.RawMessage{string(s): raw}
			for k, v := range e.Steps {
				if k != string(s) {
					steps[k] = v
				}
			}
			e.Steps = steps
		})
		return nil
	})
}

func (p *recoveryPlay) boot() string {
	f, err := p.m.Facts(p.t.Context())
	p.must(err)
	return f.BootID
}

// build makes the journal and the machine of the scene.
func (p *recoveryPlay) build() {
	j, err := journal.Open(p.cfg.journalFile())
	p.must(err)
	p.journal = j
	_, key, err := ed25519.GenerateKey(rand.Reader)
	p.must(err)
	p.reducer = newReducer(Config{MachineID: p.cfg.MachineID, StateDir: p.cfg.StateDir, Log: slog.New(slog.DiscardHandler)}, key, j, &state{})
	if p.s.state != foundIdle {
		p.accept()
		p.walk()
		p.built = p.reducer.view().find(id).Host.Seq
	}
	p.unit()
	if p.s.boot == bootNew {
		p.bootsInto(p.closure())
		p.must(p.m.PowerCycle())
		if p.s.current == runsOther || p.s.state == foundFetching || p.s.way == "superseded" {
			// What was booted is not what boots next.
			p.bootsInto(p.prior)
		}
	} else if p.s.state != foundIdle {
		p.makeLive(p.closure())
	}
	if p.s.guard == guardActed {
		outcome, err := json.Marshal(guard.Outcome{Rollout: cmp.Or(map[bool]string{true: "stable@00"}[p.s.state == foundFetching], id), Prior: p.prior, Why: "the agent was silent"})
		p.must(err)
		p.must(os.WriteFile(filepath.Join(p.cfg.StateDir, "guard-outcome"), outcome, 0o600))
	}
	p.must(j.Close())
}

// closure is what runs in the scene.
func (p *recoveryPlay) closure() fleet.Closure {
	switch {
	case p.s.way == "superseded":
		return p.before
	case p.s.current == runsPrior:
		return p.prior
	case p.s.current == runsTarget:
		return p.target
	}
	return p.other
}

func (p *recoveryPlay) accept() {
	policy := fleet.DefaultPolicy()
	policy.SoakSecsByWave = []int{3600}
	if p.s.state == foundConverged {
		policy.SoakSecsByWave = nil
	}
	manifest := &fleet.Manifest{Channel: "stable", ChannelRef: "01", Policy: &policy, HostSet: []fleet.Target{{Hostname: p.cfg.MachineID, TargetClosure: p.target}}}
	h, err := lifecycle.New(p.cfg.MachineID, id, manifest, "plan", time.Now())
	p.must(err)
	p.reducer.publish(&state{
		self:     journal.Self{Numbered: true, Accepted: 1},
		rollouts: []*entry{{Rollout: journal.Rollout{Host: h, Order: 1}, since: time.Now()}},
	})
	p.happen(lifecycle.DispatchAck{CurrentClosureAtDispatch: p.prior})
}

// walk commits what leads to the scene's state.
func (p *recoveryPlay) walk() {
	boot := p.boot()
	ran := p.prior
	if p.s.way == "superseded" {
		ran = p.before
	}
	started := lifecycle.ActivationStarted{SwitchMethod: lifecycle.MethodTestThenBoot, PriorClosure: p.prior, BootID: boot, BootDefaultWas: p.prior}
	if p.s.state == foundStaging || p.s.state == foundStagingAgain {
		started.SwitchMethod = lifecycle.MethodBoot
	}
	begin := func() {
		p.happen(lifecycle.Observed{Current: ran, BootDefault: p.prior, BootID: started.BootID}, started)
	}
	again := func() { // a boot undid it
		started.BootID = "an earlier boot"
		begin()
		p.happen(lifecycle.Observed{Current: ran, BootDefault: p.prior, BootID: boot})
	}
	complete := lifecycle.ActivationCompleted{ObservedCurrentClosure: p.target, BootID: boot}
	declare := lifecycle.ProbeTopologyDeclared{Probes: []lifecycle.ProbeDeclared{}}
	confirm := lifecycle.Confirmed{BootID: boot, Via: "control-plane"}
	persist := lifecycle.Persisted{Generation: 2, BootDefaultVerified: true}
	giveUp := lifecycle.GaveUp{Cause: lifecycle.CauseConfirm, FailingProbes: []string{}, PolicyApplied: fleet.HealthRollbackAndHalt}
	switch p.s.state {
	case foundFetching:
		if p.s.boot == bootNew || p.s.current == runsOther {
			p.mark(activation.StepFetch, activation.Mark{BootID: boot})
		}
	case foundSwitching, foundStaging:
		begin()
	case foundSwitchingAgain, foundStagingAgain:
		again()
	case foundDeferred:
		begin()
		p.happen(lifecycle.ActivationDeferred{Component: "kernel"})
		p.bootsInto(p.target)
	case foundSoaking:
		begin()
		p.happen(complete, declare, confirm)
	case foundSoakingAgain:
		again()
		p.happen(complete, declare, confirm)
	case foundPersisted:
		begin()
		p.happen(complete, declare, confirm, persist)
		p.persist()
	case foundConverged:
		begin()
		p.happen(complete, declare, confirm, persist, lifecycle.HasConverged{CurrentClosure: p.target})
		p.persist()
	case foundRollingBack:
		begin()
		switch p.s.way {
		case "the switch ended badly":
			p.happen(lifecycle.ActivationFailed{ExitCode: 2, Phase: lifecycle.PhaseSwitch, Mutated: true})
		case "the switch runs":
			p.happen(lifecycle.GaveUp{Cause: lifecycle.CauseDeadline, FailingProbes: []string{}, PolicyApplied: fleet.HealthRollbackAndHalt})
		default:
			p.happen(complete, declare, giveUp)
		}
	case foundEnded:
		begin()
		p.happen(complete, declare)
		switch p.s.way {
		case "Reverted":
			p.happen(giveUp, lifecycle.RollbackComplete{RevertedToClosure: p.prior})
		case "Failed":
			giveUp.Cause = lifecycle.CauseDrift
			p.happen(giveUp)
		case "Superseded":
			p.happen(lifecycle.WasSuperseded{By: "stable@02"})
		}
	}
}

// persist makes the target the boot default.
func (p *recoveryPlay) persist() {
	p.bootsInto(p.target)
	_, err := p.m.SetProfile(p.t.Context(), p.target)
	p.must(err)
}

// unit starts what the agent before has started, and lets it end as the scene
// wants.
func (p *recoveryPlay) unit() {
	ctx := p.t.Context()
	unit := activation.Found(p.s.unit)
	if p.s.state == foundRollingBack {
		switch p.s.way {
		case "the switch ended badly":
			p.run(host.SlotSwitch, 2)
		case "in the soak":
			p.run(host.SlotSwitch, 0)
		case "the switch runs":
			p.mark(activation.StepSwitch, activation.Mark{BootID: p.boot(), RunID: p.begin(host.SlotSwitch)})
		}
		switch unit {
		case activation.Running:
			p.begin(host.SlotRollback)
		case activation.EndedOK:
			p.run(host.SlotRollback, 0)
		case activation.EndedBadly:
			p.run(host.SlotRollback, 2)
		}
		return
	}
	if p.s.way == "the boot loader is being written" {
		p.begin(host.SlotBoot)
		return
	}
	mark := activation.Mark{BootID: p.boot(), Again: unit == activation.GoneTwice}
	switch unit {
	case activation.NeverStarted:
		if p.s.state == foundIdle || p.s.boot == bootSame && p.s.current == runsTarget {
			return // not even that it was about to be
		}
	case activation.Running:
		if mark.RunID = p.begin(host.SlotSwitch); p.s.way == "not recorded" {
			mark.RunID = ""
		}
	case activation.EndedOK:
		mark.RunID = p.run(host.SlotSwitch, 0)
	case activation.Refused:
		exit := 100
		if p.s.way == "a check failed" {
			exit = 1
		}
		mark.RunID = p.run(host.SlotSwitch, exit)
	case activation.EndedBadly:
		mark.RunID = p.run(host.SlotSwitch, 2)
	case activation.Gone, activation.GoneTwice:
		mark.RunID = p.run(host.SlotSwitch, 0)
		p.must(p.m.Clear(ctx, host.SlotSwitch))
	}
	p.mark(activation.StepSwitch, mark)
}

func (p *recoveryPlay) begin(slot host.Slot) (runID string) {
	c := host.Command{Rollout: id, Closure: p.target, Action: host.ActionTest, Timeout: activation.SwitchTimeout}
	switch slot {
	case host.SlotRollback:
		c.Closure = p.prior
	case host.SlotBoot:
		c.Action = host.ActionBoot
	}
	runID, err := p.m.Start(p.t.Context(), slot, c)
	p.must(err)
	synctest.Wait()
	return runID
}

func (p *recoveryPlay) run(slot host.Slot, exit int) (runID string) {
	p.exit = exit
	p.letGo = make(chan struct{})
	close(p.letGo)
	runID = p.begin(slot)
	p.exit, p.letGo = 0, make(chan struct{})
	return runID
}

// start lets an agent work for two minutes: shorter than any window, longer than
// all that follows at once.
func (p *recoveryPlay) start() []lifecycle.Event {
	p.mu.Lock()
	p.playing = true
	p.mu.Unlock()
	a, err := New(p.cfg, watched{p.m, p}, noRoute)
	p.must(err)
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	time.Sleep(10 * time.Second)
	close(p.letGo)
	time.Sleep(110 * time.Second)
	cancel()
	p.must(<-done)

	p.journal, err = journal.Open(p.cfg.journalFile())
	p.must(err)
	var events []lifecycle.Event
	p.must(p.journal.View(func(tx *journal.Tx) error {
		for _, raw := range tx.Events(id, p.built+1) {
			var envelope wire.Envelope
			if err := json.Unmarshal(raw, &envelope); err != nil {
				return err
			}
			e, err := wire.DecodeEvent(envelope.Event)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		return nil
	}))
	return events
}

func (p *recoveryPlay) stop() string {
	p.must(p.journal.Close())
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logged.String()
}

// kinds are the events that the table lists.
func (p *recoveryPlay) kinds(events []lifecycle.Event) []string {
	var kinds []string
	for _, e := range events {
		switch k := e.Body.Kind(); k {
		case lifecycle.KindObserved, lifecycle.KindProbeTopologyDeclared, lifecycle.KindPersisted:
		default:
			kinds = append(kinds, string(k))
		}
	}
	return kinds
}

// watched is the machine of a scene that notes what is fetched.
type watched struct {
	*dirhost.Machine
	p *recoveryPlay
}

func (w watched) Fetch(ctx context.Context, f host.Fetch) error {
	w.p.mu.Lock()
	what := "fetch"
	if f.Repair {
		what += " and verify"
	}
	w.p.runs = append(w.p.runs, what)
	w.p.mu.Unlock()
	return w.Machine.Fetch(ctx, f)
}

// started is what was started in the machine, in the words of the table.
func (p *recoveryPlay) started() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, r := range p.runs {
		switch {
		case strings.HasPrefix(r, "fetch"):
			all = append(all, r)
		case r == string(p.target)+" test":
			all = append(all, runsTarget)
		case r == string(p.prior)+" test":
			all = append(all, runsPrior)
		case strings.HasSuffix(r, " test"):
			all = append(all, r)
		}
	}
	return cmp.Or(strings.Join(all, ", "), "nothing")
}

// host is the rollout as the agent left it; nil without one.
func (p *recoveryPlay) host() *lifecycle.Host {
	var h *lifecycle.Host
	j, err := journal.Open(p.cfg.journalFile())
	p.must(err)
	defer j.Close()
	p.must(j.View(func(tx *journal.Tx) error {
		r, ok, err := tx.Rollout(id)
		if ok {
			h = &r.Host
		}
		return err
	}))
	return h
}

func (p *recoveryPlay) state() string {
	if h := p.host(); h != nil {
		return string(h.State)
	}
	return foundIdle
}

// checkMore holds what the reason of a row promises beside its cells.
func (p *recoveryPlay) checkMore(row string) {
	h := p.host()
	f, err := p.m.Facts(p.t.Context())
	p.must(err)
	switch row {
	case "R02":
		var self journal.Self
		j, err := journal.Open(p.cfg.journalFile())
		p.must(err)
		defer j.Close()
		p.must(j.View(func(tx *journal.Tx) error { self, err = tx.Self(); return err }))
		if p.s.state == foundIdle && (len(self.Notices) != 1 || self.Notices[0].Code != lifecycle.NoticeGuardActed) {
			p.t.Errorf("the notices that wait are %v", self.Notices)
		}
	case "R13", "R14":
		if !h.Retried {
			p.t.Error("the next boot into prior would be another first one")
		}
	case "R15":
		if h.Failure.Phase != lifecycle.PhaseBoot {
			p.t.Errorf("given up in phase %s", h.Failure.Phase)
		}
	case "R20", "R22":
		if confirmed := row == "R20"; h.Confirmed != confirmed {
			p.t.Errorf("confirmed in this boot: %t", h.Confirmed)
		}
	case "R21", "R23":
		if h.Failure.Cause != lifecycle.CauseDrift || f.Current != p.closure() {
			p.t.Errorf("given up for %s, and %s runs", h.Failure.Cause, f.Current)
		}
	}
	if h != nil && h.State == lifecycle.Reverted && p.s.state != foundEnded && p.s.guard == guardNone &&
		(f.Current != p.prior || f.BootDefault != p.prior || f.Profile != p.prior) {
		p.t.Errorf("reverted, and %s runs, %s boots, %s is the profile", f.Current, f.BootDefault, f.Profile)
	}
}
