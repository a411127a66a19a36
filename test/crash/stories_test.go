package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/lifecycle"
)

// story is what goes on when a program dies, and how it ends nevertheless.
type story struct {
	when string // for the table

	obey          string            // the target's switch program, when it does not just obey
	prior, target map[string]string // further files of the closures
	check         string            // of the service, for a shell; $0 is the machine's directory
	soakSecs      int
	aliveSecs     int
	second        bool // there is another release

	prepare func(w *world) // before anything starts
	drive   func(w *world) // to the point, while the programs run
	finish  func(w *world) // when the program runs again
	ends    ending
}

func (s story) script() string {
	if s.obey != "" {
		return s.obey
	}
	return "obey"
}

// ending is how a host ends.
type ending struct {
	state lifecycle.State
	on    string // what runs and boots
	later bool   // in the second release's rollout
}

func (e ending) String() string { return fmt.Sprintf("%s on %s", e.state, e.on) }

var (
	converged = ending{state: lifecycle.Converged, on: "target"}
	reverted  = ending{state: lifecycle.Reverted, on: "prior"}
)

var ordinary = story{when: "the target is good", ends: converged}

var lockedOnce = story{
	when: "another switch holds the lock at first",
	obey: `if [ "$action" = test ] && [ ! -e "$NIXFLEET_ROOT/tried" ]; then : >"$NIXFLEET_ROOT/tried"; exit 11; fi; obey`,
	ends: converged,
}

var elsewhere = story{
	when: "something else made the target the boot default before",
	prepare: func(w *world) {
		w.ok(os.WriteFile(w.in("boot/default"), []byte("/nix/store/"+string(w.target)+"\n"), 0o644))
	},
	ends: converged,
}

var failing = story{
	when: "the switch fails",
	obey: `obey; [ "$action" != test ] || exit 3`,
	ends: reverted,
}

var unhealthy = story{
	when:     "the target's service fails once it boots",
	target:   map[string]string{"bad": ""},
	check:    `[ ! -e "$0/run/current-system/bad" ] || ! grep -q 'target$' "$0/boot/default"`,
	soakSecs: 300,
	ends:     reverted,
}

var staged = story{
	when:   "the target may only be booted into",
	prior:  map[string]string{"switch-inhibitors": `{"dbus":"1"}`},
	target: map[string]string{"switch-inhibitors": `{"dbus":"2"}`},
	finish: func(w *world) {
		booted := false
		w.eventually("the target is booted into", func() (bool, string) {
			runs, boots := w.look()
			state, text := w.state(w.rollout)
			if state == lifecycle.Deferred && runs == "prior" && boots == "target" && !booted {
				booted = true
				w.cutPower() // which is how somebody turns it off and on
				w.agent.keep()
			}
			return runs == "target", text
		})
	},
	ends: converged,
}

var takenBack = story{
	when:   "a newer release comes when the target is staged",
	prior:  staged.prior,
	target: staged.target,
	second: true,
	drive: func(w *world) {
		w.eventually("the target is staged", func() (bool, string) {
			state, text := w.state(w.rollout)
			return state == lifecycle.Deferred, text
		})
		w.second = w.publish("2", w.next)
	},
	ends: ending{state: lifecycle.Converged, on: "next", later: true},
}

var silent = story{
	when:      "the agent was killed while the target soaked",
	soakSecs:  20,
	aliveSecs: 8,
	drive: func(w *world) {
		w.eventually("the target runs and boots", w.is("target", "target"))
		w.agent.stop(syscall.SIGKILL)
	},
	ends: reverted,
}

// longSilent has a guard that looks long before a new agent shows that it lives.
var longSilent = func() story {
	s := silent
	s.aliveSecs = 20
	return s
}()

// The switch that does not end has half an hour. Instead of waiting for that, the
// deadline in the lease is made one that has passed.
var stuck = story{
	when: "the agent was killed in a switch whose time is up",
	drive: func(w *world) {
		w.eventually("the switch runs", func() (bool, string) {
			run := w.unit(host.SlotSwitch)
			return run.Phase == host.RunRunning, fmt.Sprintf("%+v", run)
		})
		w.agent.stop(syscall.SIGKILL)
		file := w.stateDir() + "/lease"
		var lease map[string]any
		text, err := os.ReadFile(file)
		w.ok(err)
		w.ok(json.Unmarshal(text, &lease))
		lease["confirmBy"] = 1
		text, err = json.Marshal(lease)
		w.ok(err)
		w.ok(os.WriteFile(file+".new", text, 0o600))
		w.ok(os.Rename(file+".new", file))
	},
	ends: reverted,
}

// The programs that die.
const (
	agent        = "agent"
	guard        = "guard"
	controlPlane = "control plane"
)

// trial is one way to a point.
type trial struct {
	at    string // the point, with #n when it is not the first time
	of    string // the program that dies
	story story

	holds []string // units that wait until the program runs again: action-closure
	// anyMoment: the machine goes on meanwhile, so what it runs and boots then is
	// not always the same.
	anyMoment bool
	power     bool    // the power is cut there as well
	second    bool    // only the agent that is started after the guard dies
	cutEnds   *ending // after a power cut, when that is not how the story ends
}

func (tr trial) point() string {
	name, _, _ := strings.Cut(tr.at, "#")
	return name
}

func (tr trial) ending(power bool) ending {
	if power && tr.cutEnds != nil {
		return *tr.cutEnds
	}
	return tr.story.ends
}

// trials are all of them, in about the order in which a rollout passes the points.
func trials() []trial {
	return []trial{
		{at: "core/documents-logged", of: controlPlane, story: ordinary},
		{at: "store/prepared", of: controlPlane, story: ordinary},
		{at: "store/committed", of: controlPlane, story: ordinary},
		{at: "core/documents-stored", of: controlPlane, story: ordinary},

		{at: "api/certificate-issued", of: controlPlane, story: ordinary},
		{at: "core/certificate-logged", of: controlPlane, story: ordinary},
		{at: "api/certificate-recorded", of: controlPlane, story: ordinary},
		{at: "agent/certificate-answered", of: agent, story: ordinary},
		{at: "durable/written", of: agent, story: ordinary},
		{at: "durable/renamed", of: agent, story: ordinary},
		{at: "agent/certificate-stored", of: agent, story: ordinary},
		{at: "journal/prepared", of: agent, story: ordinary},
		{at: "journal/committed", of: agent, story: ordinary},

		{at: "core/order-handed", of: controlPlane, story: ordinary},
		{at: "api/order-answered", of: controlPlane, story: ordinary},
		{at: "agent/marks-saved", of: agent, story: ordinary},
		{at: "agent/accepted", of: agent, story: ordinary},
		{at: "api/events-answered", of: controlPlane, story: ordinary, anyMoment: true},
		{at: "agent/events-answered", of: agent, story: ordinary, anyMoment: true},

		{at: "activation/fetch-marked", of: agent, story: ordinary, power: true},
		{at: "activation/fetched", of: agent, story: ordinary, power: true},
		{at: "agent/activation-started", of: agent, story: ordinary, power: true},
		{at: "guard/linked", of: agent, story: ordinary, power: true},
		{at: "guard/leased", of: agent, story: ordinary, power: true},
		{at: "agent/guard-started", of: agent, story: ordinary, power: true},
		{at: "activation/way-back-secured", of: agent, story: elsewhere, power: true},
		{at: "activation/switch-marked", of: agent, story: ordinary, power: true},
		{at: "activation/switch-started", of: agent, story: ordinary, holds: []string{"test-target"}, power: true},
		{at: "activation/switch-recorded", of: agent, story: ordinary, holds: []string{"test-target"}, power: true},
		{at: "activation/switch-ended", of: agent, story: ordinary, power: true},
		{at: "activation/switch-forgotten", of: agent, story: lockedOnce, power: true},
		{at: "agent/activation-completed", of: agent, story: ordinary, power: true},
		{at: "agent/confirmed", of: agent, story: ordinary, power: true},
		{at: "activation/profile-set", of: agent, story: ordinary, power: true},
		{at: "activation/boot-started", of: agent, story: ordinary, holds: []string{"boot-target"}, power: true},
		{at: "activation/boot-ended", of: agent, story: ordinary, power: true},
		{at: "activation/boot-verified", of: agent, story: ordinary, power: true},
		{at: "agent/persisted", of: agent, story: ordinary, power: true},
		{at: "agent/converged", of: agent, story: ordinary, power: true},
		{at: "agent/lease-removed", of: agent, story: ordinary, power: true},

		{at: "activation/staged", of: agent, story: staged, power: true},
		{at: "agent/activation-deferred", of: agent, story: staged, power: true},
		{at: "activation/unstaged", of: agent, story: takenBack, power: true},

		{at: "agent/activation-failed", of: agent, story: failing, power: true},
		{at: "activation/rollback-begun", of: agent, story: failing, power: true},
		{at: "activation/rollback-started", of: agent, story: failing, holds: []string{"test-prior"}, power: true},
		{at: "activation/rollback-ended", of: agent, story: failing, power: true},
		{at: "agent/rolled-back", of: agent, story: failing, power: true},
		{at: "agent/gave-up", of: agent, story: unhealthy, power: true},
		{at: "activation/profile-set#2", of: agent, story: unhealthy, power: true},
		{at: "activation/boot-started#2", of: agent, story: unhealthy, holds: []string{"boot-prior"}, power: true},
		{at: "activation/rollback-boots", of: agent, story: unhealthy, power: true},

		// The next guard sees the same silence: an agent that was just started does not
		// break it at once. A boot begins anew.
		{at: "guard/agent-stopped", of: guard, story: longSilent, power: true, cutEnds: &converged},
		{at: "guard/claim-written", of: guard, story: silent, power: true},
		{at: "guard/claimed", of: guard, story: silent, power: true},
		{at: "activation/rollback-boots", of: guard, story: silent, power: true},
		{at: "activation/rollback-started", of: guard, story: silent, holds: []string{"test-prior"}, power: true},
		{at: "guard/gone-back", of: guard, story: silent, power: true},
		{at: "guard/outcome-written", of: guard, story: silent, power: true},
		{at: "guard/left", of: guard, story: silent, power: true},
		{at: "agent/guard-outcome-committed", of: agent, story: silent, second: true, power: true},
		{at: "activation/switch-stopped", of: guard, story: stuck, holds: []string{"test-target"}, power: true},
	}
}
