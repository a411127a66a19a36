// Package crashpoint names the moments at which a program may die worst: before
// and after each thing that it makes durable. Each moment is a point, marked where
// it is by
//
//	crashpoint.Here("activation/profile-set", "the profile is the closure; the boot default is not yet")
//
// with a name that no other point has and one sentence that says what is durable
// then. Both are literals: test/crash finds them in the source, has a real program
// die at each, and writes docs/crash-table.md from them.
//
// In an ordinary build Here is nothing at all: no point, no sentence and no
// variable is in the program. In one that is built with -tags crashpoints, for
// Linux, the environment arms at most one point:
//
//	NIXFLEET_CRASHPOINT=kill:activation/profile-set    dies there by SIGKILL
//	NIXFLEET_CRASHPOINT=kill:activation/profile-set#2  dies when it passes there the second time
//	NIXFLEET_CRASHPOINT=stop:activation/profile-set    stops there by SIGSTOP, whole
//
// A process that stopped goes on from there when somebody continues it, and does
// not stop again. That is how the power of a machine is cut at a point, and how a
// machine is looked at while it is there. Before it dies or stops, the process
// writes one line to its standard error:
//
//	crashpoint: kill at activation/profile-set
//
// A service manager that starts a killed program again arms it again. Whoever wants
// it to die once has it stop, disarms the service, and then kills it.
//
// A value that is not of this form ends the program with status 2. Whether a point
// of that name exists is not looked at: that it was reached is for the line to show.
//
// The variable arms the process that finds it in its environment, and is taken out
// of it. Programs that this one starts are armed only where Environ is handed on:
// that is done with guards.
package crashpoint
