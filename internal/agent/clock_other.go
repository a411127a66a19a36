//go:build !linux

package agent

// synchronised is not known here: nothing but the floor and the policy decides.
func synchronised() bool { return false }

// suspension notices that the machine slept; it cannot be asked here.
type suspension struct{}

func (*suspension) since() bool { return false }
