package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// UnitState is what the service manager says about a unit, in systemd's words.
type UnitState struct {
	Load   string // "loaded", "not-found", "masked" and others
	Active string // "active", "inactive", "failed" and others
	Result string // of its last run: "success", "exit-code" and others; "" where the unit's type has none
}

func noUnits(context.Context, string) (UnitState, error) {
	return UnitState{}, errors.New("there is no systemd on this host")
}

// unitTypes are the ends of the names of units.
var unitTypes = []string{
	".service", ".socket", ".target", ".timer", ".mount", ".automount", ".swap", ".path", ".slice", ".scope", ".device",
}

const maxUnitName = 255 // systemd's own limit

// unitName is the unit's whole name: one without a type is a service's, as
// systemctl has it.
func (s settings) unitName() (string, error) {
	if s.Unit == "" {
		return "", errors.New("unit: the name of a systemd unit is needed")
	}
	name := s.Unit
	if !slices.ContainsFunc(unitTypes, func(end string) bool { return strings.HasSuffix(name, end) }) {
		name += ".service"
	}
	foreign := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(`:-_.\@`, r))
	}
	if len(name) > maxUnitName || strings.ContainsFunc(name, foreign) {
		return "", fmt.Errorf("unit %q: no systemd unit has such a name", s.Unit)
	}
	return name, nil
}

func (s settings) unitCheck(m Machine) (Func, time.Duration, error) {
	name, err := s.unitName()
	if err != nil {
		return nil, 0, err
	}
	return func(ctx context.Context) Verdict {
		u, err := m.Unit(ctx, name)
		if err != nil {
			return fail(fmt.Sprintf("%s cannot be looked at: %v", name, err))
		}
		if why := u.unhealthy(); why != "" {
			return fail(name + why)
		}
		return pass()
	}, s.timeout(), nil
}

// unhealthy says what is wrong with a unit, "" for nothing. One that is being
// reloaded serves on. One that has ended is not active, however well it ended:
// its timer is what can be watched.
func (u UnitState) unhealthy() string {
	switch {
	case u.Load == "not-found":
		return ": systemd knows no such unit"
	case u.Load != "loaded":
		return " is not loaded: " + u.Load
	case !slices.Contains([]string{"active", "reloading", "refreshing"}, u.Active):
		if u.Result == "" || u.Result == "success" {
			return " is " + u.Active
		}
		return " is " + u.Active + ", its result is " + u.Result
	case u.Result != "" && u.Result != "success":
		return " is " + u.Active + ", but its result is " + u.Result
	}
	return ""
}
