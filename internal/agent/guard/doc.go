// Package guard is the dead man's switch over a machine's agent: a process of its
// own that takes the machine back to prior, by the same code, when the agent
// cannot.
//
// It promises that a machine whose agent died, hangs, does not start any more, or
// lives and cannot reach anybody, goes back to the exact closure that it ran
// before; that it never acts while a switch is under way, and never on a host
// whose journal says that no guard is wanted; and that what it did is on disk
// before the agent starts again.
//
// It needs an agent that writes the lease before it changes the machine, shows
// that it lives as often as Beat says, and removes the lease as soon as the state
// of its rollout wants no guard; and a way to read the journal where a damaged
// file cannot hurt it. It always runs the program of prior's agent.
//
// It never talks to the network, never writes the journal, and never tells the
// control plane anything: the next agent turns the outcome into events.
//
//	<state-dir>/lease          what is guarded
//	<state-dir>/lease.claimed  the same, while or after a guard acts on it
//	<state-dir>/guard          link to the program that guards
//	<state-dir>/guard-outcome  what a guard did, until an agent has committed it
//	<boot folder>/lock         held by the guard that watches
//	<boot folder>/alive        the agent's last sign of life
//	<boot folder>/since        since when, in this boot, a guard has watched this lease
package guard
