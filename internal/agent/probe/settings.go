package probe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nixfleet/internal/lifecycle"
)

const defaultInterval = 30 // seconds

// settings is one probe as health-checks.json declares it: the union of the
// fields of all kinds. A field of another kind is allowed and ignored.
type settings struct {
	Kind                string         `json:"kind"`
	Mode                lifecycle.Mode `json:"mode"`
	IntervalSeconds     int            `json:"intervalSeconds"`
	RunOnce             bool           `json:"runOnce"`
	StartupGraceSeconds int            `json:"startupGraceSeconds"`
	Retries             int            `json:"retries"`

	// http
	URL             string            `json:"url"`
	ExpectStatus    int               `json:"expectStatus"`
	BodyContains    string            `json:"bodyContains"`
	Headers         map[string]string `json:"headers"`
	CACert          string            `json:"caCert"` // a PEM file; the system's roots when empty
	FollowRedirects bool              `json:"followRedirects"`

	// tcp
	Host               string `json:"host"`
	Port               int    `json:"port"`
	ConnectTimeoutSecs int    `json:"connectTimeoutSecs"` // also of http

	// exec
	Command        []string `json:"command"`
	ExpectExitCode int      `json:"expectExitCode"`
	TimeoutSecs    int      `json:"timeoutSecs"` // also of http, unit and evidence
	User           string   `json:"user"`

	// unit
	Unit string `json:"unit"`

	// evidence
	Framework        string             `json:"framework"`
	EvidencePath     string             `json:"evidencePath"`
	MaxAgeSeconds    int                `json:"maxAgeSeconds"`
	ControlOverrides map[string]control `json:"controlOverrides"`
	Controls         map[string]control `json:"controls"`
}

// control is the mode of one control of an evidence probe.
type control struct {
	Mode   lifecycle.Mode `json:"mode"`
	Reason string         `json:"reason"`
}

func defaults() settings {
	return settings{
		Mode:               lifecycle.Enforce,
		IntervalSeconds:    defaultInterval,
		ExpectStatus:       200,
		Host:               "127.0.0.1",
		ConnectTimeoutSecs: 5,
		TimeoutSecs:        10,
		EvidencePath:       "/var/lib/nixfleet-compliance/evidence.json",
		MaxAgeSeconds:      86400,
	}
}

// validate checks what all kinds have in common.
func (s settings) validate() error {
	if s.kind() == KindInvalid {
		return fmt.Errorf("kind %q: http, tcp, exec, unit or evidence is needed", s.Kind)
	}
	if err := checkMode("mode", s.Mode); err != nil {
		return err
	}
	for _, control := range []map[string]control{s.ControlOverrides, s.Controls} {
		for id, c := range control {
			if err := checkMode("mode of control "+id, c.Mode); err != nil {
				return err
			}
		}
	}
	return errors.Join(
		inRange("intervalSeconds", s.IntervalSeconds, 1, 86400),
		inRange("startupGraceSeconds", s.StartupGraceSeconds, 0, 86400),
		inRange("retries", s.Retries, 0, 100),
		inRange("expectStatus", s.ExpectStatus, 100, 599),
		inRange("connectTimeoutSecs", s.ConnectTimeoutSecs, 1, 3600),
		inRange("expectExitCode", s.ExpectExitCode, 0, 255),
		inRange("timeoutSecs", s.TimeoutSecs, 1, 3600),
		inRange("port", cmp.Or(s.Port, 1), 1, 65535), // 0 is "not set"
		inRange("maxAgeSeconds", s.MaxAgeSeconds, 1, 10*365*86400),
	)
}

func checkMode(field string, mode lifecycle.Mode) error {
	if !slices.Contains([]lifecycle.Mode{lifecycle.Enforce, lifecycle.Observe, lifecycle.Disabled}, mode) {
		return fmt.Errorf("%s %q: enforce, observe or disabled is needed", field, mode)
	}
	return nil
}

func inRange(field string, value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("%s %d: %d to %d is allowed", field, value, low, high)
	}
	return nil
}

// kind is the declared kind, or KindInvalid.
func (s settings) kind() string {
	switch s.Kind {
	case KindHTTP, KindTCP, KindExec, KindUnit, KindEvidence:
		return s.Kind
	}
	return KindInvalid
}

// check makes the function of the probe's kind, and says how long one attempt
// may take.
func (s settings) check(m Machine) (Func, time.Duration, error) {
	switch s.Kind {
	case KindHTTP:
		return s.httpCheck(m)
	case KindTCP:
		return s.tcpCheck(m)
	case KindExec:
		return s.execCheck(m)
	case KindUnit:
		return s.unitCheck(m)
	case KindEvidence:
		return s.evidenceCheck(m)
	}
	return nil, 0, fmt.Errorf("kind %q has no check", s.Kind) // validate refuses it
}

func (s settings) timeout() time.Duration { return time.Duration(s.TimeoutSecs) * time.Second }

func (s settings) connectTimeout() time.Duration {
	return time.Duration(s.ConnectTimeoutSecs) * time.Second
}

// unbracketed takes an IPv6 literal in either form.
func unbracketed(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok := strings.CutSuffix(inner, "]"); ok {
			return inner
		}
	}
	return host
}
