//go:build !linux

package agent

import "time"

// KernelClock is the clock alone: whether it is synchronised is not known here,
// so that nothing but the floor and the policy decides.
func KernelClock() ClockState { return ClockState{Now: time.Now()} }

// suspension notices that the machine slept; it cannot be asked here.
type suspension struct{}

func (*suspension) since() bool { return false }
