// Package probe runs the health checks that a host's system declares.
//
// It promises to fail closed: a probe that cannot be understood or run is a
// failing probe that says why, never an absent one. It promises bounds: on the
// time, the output and the number of checks at once, and on what it remembers.
//
// It needs from its caller a run for each activation (first results come at
// once) and a report function that returns. It needs the machine only through
// Machine, so that it also runs where network and programs are simulated.
//
// It never decides what a result means for a rollout, keeps nothing on disk, and
// leaves no process behind that stayed in its process group.
package probe
