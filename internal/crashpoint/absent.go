//go:build !crashpoints

package crashpoint

// Here is nothing in this build.
func Here(point, durable string) {}

// Environ is empty in this build.
func Environ() []string { return nil }
