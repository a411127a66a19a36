// Package crash has real programs die at every crash point that is registered in
// the code, starts them again, and looks whether the promises hold: a machine runs
// and boots the system that it was told to run or the one it ran before, and says
// which; every event is at the control plane once, in order, and its chain holds;
// nothing of the crash is left.
//
// Each run is a fleet of its own, of one host: a control plane and an agent that
// were built with -tags crashpoints, on a machine in a directory. What was seen is
// docs/crash-table.md, made by
//
//	go test ./test/crash -update
package crash
