package demo

import (
	"context"
	"net/http"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// The demo's times, short so that much can be shown in a minute.
const (
	heartbeat         = 2 * time.Second
	soakSecs          = 3
	shortSoakSecs     = 1 // of releases that are not about it
	healthFailureSecs = 3
	confirmWindowSecs = 8
	aliveSecs         = 5 // of the release that cuts its hosts off
	switchSecs        = 2 // of the release in whose switches agents are killed

	// actLimit is how long a rollout may take; settleLimit how much longer until
	// all that was reported about it has been stored.
	actLimit    = 30 * time.Second
	settleLimit = 10 * time.Second
)

// act is one thing that the demo shows. Play makes it happen and returns the
// rollout in which it did; what play did counts for nothing. Holds decides, from
// findings made afterwards, whether it is so.
type act struct {
	name  string
	title string
	look  string // what to look at, for a person
	play  func(ctx context.Context, w *world) (rolloutID string, err error)
	also  func(w *world, ctx context.Context, f *findings) error // finds what else holds wants to know; nil: nothing
	holds func(f *findings) verdict
}

// acts are the demo's acts, in their order.
func acts() []act {
	good := serving(http.StatusOK, 0)
	return []act{
		{
			name:  "converge",
			title: "release 1: every host enrols and converges",
			look:  "each agent trades its token for a certificate, takes its order, fetches, switches, soaks",
			play: func(ctx context.Context, w *world) (string, error) {
				return w.rollOut(ctx, releaseSpec{allAtOnce, soakSecs, good}, (*world).startAgents)
			},
			holds: everybodyConverged,
		},
		{
			name:  "canary-waves",
			title: "release 2, canary first: waves advance after the soak",
			look:  "nobody else moves before host-1 has run the new system for 3 s and is healthy",
			play: func(ctx context.Context, w *world) (string, error) {
				return w.rollOut(ctx, releaseSpec{canaryFirst, soakSecs, good}, nil)
			},
			holds: wavesSoaked,
		},
		{
			name:  "bad-release-reverts",
			title: "release 3 is broken, its service answers 500: the canary goes back by itself",
			look:  "host-1 fails its probe for 3 s and returns to release 2; the rollout halts; nobody else is touched",
			play: func(ctx context.Context, w *world) (string, error) {
				return w.rollOut(ctx, releaseSpec{canaryFirst, soakSecs, serving(http.StatusInternalServerError, 0)}, nil)
			},
			holds: canaryReverted,
		},
		{
			name:  "lost-network-reverts",
			title: "release 4 cuts its hosts off from the network: they go back by themselves",
			look:  "host-1 reaches nobody for 8 s and gives up; host-2's agent hangs as well, so its guard acts after 5 s",
			play: func(ctx context.Context, w *world) (string, error) {
				return w.rollOut(ctx, releaseSpec{pairFirst, soakSecs, cutOff(good)}, (*world).freezeAgent)
			},
			holds: cutOffReverted,
		},
		{
			name:  "kills",
			title: "release 5: agents are killed in the middle of their switches, the control plane between two waves",
			look:  "everything comes back, goes on where it was, and nothing that was reported is lost",
			play: func(ctx context.Context, w *world) (string, error) {
				return w.rollOut(ctx, releaseSpec{canaryFirst, shortSoakSecs, serving(http.StatusOK, switchSecs)}, (*world).killAll)
			},
			holds: survivedKills,
		},
		{
			name:  "attacks-refused",
			title: "the control plane and the cache are taken over: tampered, old, forged and smuggled releases are refused",
			look:  "hosts believe only the keys that are pinned on them; the owner's next release goes through",
			play: func(ctx context.Context, w *world) (string, error) {
				a, err := w.newAttacker()
				if err != nil {
					return "", err
				}
				return w.attack(ctx, a)
			},
			also:  (*world).findAttacks,
			holds: attacksRefused,
		},
		{
			name:  "auditor",
			title: "the auditor: every host's chain of signed records verifies offline, and one flipped bit does not",
			look:  "nixfleet evidence export, then nixfleet evidence verify with the fleet document's keys",
			play:  func(_ context.Context, w *world) (string, error) { return w.newest, nil },
			also:  (*world).findAudit,
			holds: audited,
		},
	}
}

// rollOut publishes a release and waits until its rollout has ended. Meanwhile
// happens while it is under way.
func (w *world) rollOut(ctx context.Context, spec releaseSpec, meanwhile func(w *world, ctx context.Context, id string) error) (string, error) {
	id, err := w.publish(ctx, spec)
	if err != nil {
		return "", err
	}
	if meanwhile != nil {
		if err := meanwhile(w, ctx, id); err != nil {
			return id, err
		}
	}
	return id, w.settled(ctx, id)
}

// freezeAgent has the second host's agent hang on the new system, until the
// rollout has ended or nothing more is waited for.
func (w *world) freezeAgent(ctx context.Context, id string) error {
	m := w.machines[1]
	agent := w.agents[m.name]
	err := w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
		if _, err := w.watch(ctx, id); err != nil {
			return false, err
		}
		live, err := m.committed(id, lifecycle.KindActivationCompleted, w.folder)
		if err != nil || !live || agent.freeze() != nil {
			return false, nil // a journal in the middle of a commit is looked at again
		}
		w.say(Progress{Kind: Note, Text: "froze the agent of " + m.name + " on a system without a network"})
		return true, nil
	})
	if err != nil {
		return err
	}
	err = w.settled(ctx, id)
	agent.thaw() // it may have ended; what is started in its place does not hang
	return err
}

// killAll kills the canary's agent in its switch, the control plane after the
// first wave, and another agent in its switch. What cannot be killed like that,
// because its moment does not come, is missing in the findings.
func (w *world) killAll(ctx context.Context, id string) error {
	targets, err := w.targets(id)
	if err != nil {
		return err
	}
	canary, other := w.machines[0], w.machines[len(w.machines)-1]
	steps := []struct {
		now  func(rows []wire.RolloutHost) bool
		kill *daemon
		note string
	}{
		{
			now:  func([]wire.RolloutHost) bool { return canary.switching(targets[canary.name]) },
			kill: w.agents[canary.name],
			note: "killed the agent of " + canary.name + " in the middle of its switch",
		},
		{
			now:  func(rows []wire.RolloutHost) bool { return stateOf(rows, canary.name) == lifecycle.Converged },
			kill: w.controlPlane,
			note: "killed the control plane between two waves",
		},
		{
			now:  func([]wire.RolloutHost) bool { return other.switching(targets[other.name]) },
			kill: w.agents[other.name],
			note: "killed the agent of " + other.name + " in the middle of its switch",
		},
	}
	for _, step := range steps {
		err := w.until(ctx, actLimit, func(ctx context.Context) (bool, error) {
			rows, err := w.watch(ctx, id) // none while the control plane is away
			switch {
			case step.now(rows) && step.kill.kill() == nil:
				w.say(Progress{Kind: Note, Text: step.note})
				return true, nil
			case stateOf(rows, canary.name) == lifecycle.Failed:
				return true, nil
			}
			return false, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func stateOf(rows []wire.RolloutHost, host string) lifecycle.State {
	for _, row := range rows {
		if row.Hostname == host {
			return row.State
		}
	}
	return ""
}
