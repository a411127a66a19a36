package identity

import (
	"fmt"
	"regexp"
)

// Names go into certificates, URLs and file names, so their alphabet is narrow.
// 63 bytes keep a host a DNS label.
var (
	hostName     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	operatorName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._@+-]{0,61}[A-Za-z0-9])?$`)
)

// CheckHostName tells whether name can be a machine id, and what is allowed.
func CheckHostName(name string) error {
	if !hostName.MatchString(name) {
		return fmt.Errorf("machine id %q: 1 to 63 letters, digits, '.', '_' and '-' are allowed, a letter or digit first and last", name)
	}
	return nil
}

// CheckOperatorName tells whether name can be an operator, and what is allowed.
func CheckOperatorName(name string) error {
	if !operatorName.MatchString(name) {
		return fmt.Errorf("operator %q: 1 to 63 letters, digits, '.', '_', '@', '+' and '-' are allowed, a letter or digit first and last", name)
	}
	return nil
}
