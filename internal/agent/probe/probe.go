package probe

import (
	"context"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"nixfleet/internal/lifecycle"
)

// Func makes one check. Its deadline comes only through the context; it returns
// soon after the context ends, and then its verdict does not count.
type Func func(ctx context.Context) Verdict

// Verdict is what one check found.
type Verdict struct {
	Status     lifecycle.Status      `json:"status"`
	Reason     string                `json:"reason,omitempty"` // of a failure
	SubResults []lifecycle.SubResult `json:"subResults,omitempty"`
}

func pass() Verdict { return Verdict{Status: lifecycle.Pass} }

func fail(reason string) Verdict { return Verdict{Status: lifecycle.Fail, Reason: reason} }

// Probe is one declared health check.
type Probe struct {
	Name     string
	Kind     string
	Mode     lifecycle.Mode
	Interval time.Duration // between the starts of two checks, with 10 % jitter
	Grace    time.Duration // failures before the first pass do not count for so long
	Timeout  time.Duration // of one attempt
	Retries  int           // further attempts before a failure counts
	RunOnce  bool          // ends with the first result that counts
	Check    Func

	// Broken is why the probe fails whatever it looks at: it is not declared as a
	// probe must be. "" for one that can be run.
	Broken string
}

// Machine is what probes touch. The zero value is this machine.
type Machine struct {
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Exec func(ctx context.Context, c Command) (Exit, error)
	// Unit asks the service manager about a unit by its whole name. Nil: there is
	// none.
	Unit     func(ctx context.Context, name string) (UnitState, error)
	Evidence Evidence
}

func (m Machine) withDefaults() Machine {
	if m.Dial == nil {
		m.Dial = new(net.Dialer).DialContext
	}
	if m.Exec == nil {
		m.Exec = Exec
	}
	if m.Unit == nil {
		m.Unit = noUnits
	}
	return m
}

// MaxReason is the length of the longest reason, in bytes.
const MaxReason = 512

const ellipsis = "…"

// withText is a reason with what was said to it, if anything was.
func withText(reason, said string) string {
	if said == "" {
		return reason
	}
	return reason + ": " + said
}

// withEnd is withText for output that may be longer than what fits: a program says
// last why it failed.
func withEnd(reason string, output []byte) string {
	room := MaxReason - len(reason) - len(": ") - len(ellipsis)
	said := strings.ToValidUTF8(string(output), string(utf8.RuneError))
	if len(said) <= room || room <= 0 {
		return withText(reason, said)
	}
	cut := len(said) - room
	for cut < len(said) && !utf8.RuneStart(said[cut]) {
		cut++
	}
	return withText(reason, ellipsis+said[cut:])
}

// bounded makes any text a reason: valid UTF-8 of at most MaxReason bytes.
func bounded(text string) string {
	text = strings.ToValidUTF8(strings.TrimSpace(text), string(utf8.RuneError))
	if len(text) <= MaxReason {
		return text
	}
	cut := MaxReason - len(ellipsis)
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}

// bounded applies the bounds to all texts of a verdict, and makes any status
// that is not a pass a failure.
func (v Verdict) bounded() Verdict {
	if v.Status != lifecycle.Pass {
		v.Status = lifecycle.Fail
	}
	v.Reason = bounded(v.Reason)
	for i := range v.SubResults {
		v.SubResults[i].Reason = bounded(v.SubResults[i].Reason)
	}
	return v
}
