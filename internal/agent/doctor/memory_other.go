//go:build !linux

package doctor

// inMemory is false: where there is no Linux, folders in memory are made by hand.
func inMemory(string) (bool, error) { return false, nil }
