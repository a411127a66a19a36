package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"nixfleet/internal/lifecycle"
)

// The kinds of probes. KindConfig is that of ConfigProbe; KindInvalid stands for
// a kind that is none.
const (
	KindHTTP     = "http"
	KindTCP      = "tcp"
	KindExec     = "exec"
	KindUnit     = "unit"
	KindEvidence = "evidence"
	KindConfig   = "config"
	KindInvalid  = "invalid"
)

// Names that no file may declare: that of the probe that stands for a file that
// cannot be read, that of the health gate's own probe, and those of probes whose
// own name cannot be used, which are numbered by their place in the file.
const (
	ConfigProbe       = "health-checks-config"
	FailedUnitsProbe  = "systemd-failed-units"
	invalidNamePrefix = "invalid-name-"
)

const (
	maxFile = 1 << 20
	maxName = 128
)

// Topology is the probes that a system declares, by name.
type Topology struct {
	Probes []Probe
}

// Declared is the topology as it is reported, never nil.
func (t Topology) Declared() []lifecycle.ProbeDeclared {
	declared := make([]lifecycle.ProbeDeclared, 0, len(t.Probes))
	for _, p := range t.Probes {
		declared = append(declared, lifecycle.ProbeDeclared{ProbeName: p.Name, Kind: p.Kind, Mode: p.Mode})
	}
	return declared
}

// With adds a probe that is built in, in its place by name.
func (t Topology) With(p Probe) Topology {
	probes := append(slices.Clone(t.Probes), p)
	slices.SortFunc(probes, func(a, b Probe) int { return strings.Compare(a.Name, b.Name) })
	return Topology{probes}
}

// Load reads health-checks.json. It cannot fail: a file that is absent declares
// nothing, one that cannot be read or parsed is the one failing probe
// ConfigProbe, and a probe that is not valid is a failing one in enforce mode.
func Load(file string, m Machine) Topology {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Topology{}
	}
	if err != nil {
		return unreadable(err)
	}
	defer f.Close() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return unreadable(err)
	}
	return Parse(data, m)
}

// Parse is Load for the file's content.
func Parse(data []byte, m Machine) Topology {
	if len(data) > maxFile {
		return unreadable(fmt.Errorf("larger than %d bytes", maxFile))
	}
	entries, err := split(data)
	if err != nil {
		return unreadable(err)
	}
	m = m.withDefaults()
	var t Topology
	for i, e := range entries {
		t = t.With(e.probe(i+1, m))
	}
	return t
}

// entry is one member of the file's object.
type entry struct {
	name     string
	raw      jsontext.Value
	repeated bool
}

// split takes the file's object apart without looking into the probes, so that
// one bad probe spoils no other. It fails when the file is no JSON object.
func split(data []byte) ([]entry, error) {
	decoder := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(false))
	if kind := decoder.PeekKind(); kind != '{' {
		if _, err := decoder.ReadToken(); err != nil {
			return nil, err
		}
		return nil, errors.New("not a JSON object by probe name")
	}
	if _, err := decoder.ReadToken(); err != nil {
		return nil, err
	}
	var entries []entry
	index := map[string]int{}
	for decoder.PeekKind() != '}' {
		token, err := decoder.ReadToken()
		if err != nil {
			return nil, err
		}
		name := token.String()
		raw, err := decoder.ReadValue()
		if err != nil {
			return nil, err
		}
		if i, ok := index[name]; ok {
			entries[i].repeated = true
			continue
		}
		index[name] = len(entries)
		entries = append(entries, entry{name: name, raw: raw.Clone()})
	}
	if _, err := decoder.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := decoder.ReadToken(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return entries, nil
}

// probe makes the entry's probe, the n-th of the file: what it declares, or a
// failing one.
func (e entry) probe(n int, m Machine) Probe {
	if err := checkName(e.name); err != nil {
		return failing(fmt.Sprintf("%s%d", invalidNamePrefix, n), KindInvalid, err.Error())
	}
	s, err := parseSettings(e.raw)
	if e.repeated {
		err = fmt.Errorf("the probe %s is declared more than once", e.name)
	}
	if err != nil {
		return failing(e.name, s.kind(), err.Error())
	}
	check, timeout, err := s.check(m)
	if err != nil {
		return failing(e.name, s.kind(), err.Error())
	}
	mode := s.Mode
	if s.Kind == KindEvidence {
		mode = m.Evidence.mode(mode)
	}
	return Probe{
		Name:     e.name,
		Kind:     s.Kind,
		Mode:     mode,
		Interval: time.Duration(s.IntervalSeconds) * time.Second,
		Grace:    time.Duration(s.StartupGraceSeconds) * time.Second,
		Timeout:  timeout,
		Retries:  s.Retries,
		RunOnce:  s.RunOnce,
		Check:    check,
	}
}

// checkName accepts what can be shown everywhere and stands for one probe only.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the probe has no name")
	case len(name) > maxName:
		return fmt.Errorf("the probe's name has %d bytes, at most %d are allowed: %q", len(name), maxName, name)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("the probe's name has characters that cannot be printed: %q", name)
	case name == ConfigProbe, name == FailedUnitsProbe, strings.HasPrefix(name, invalidNamePrefix):
		return fmt.Errorf("the name %s is reserved", name)
	}
	return nil
}

func unreadable(err error) Topology {
	return Topology{}.With(failing(ConfigProbe, KindConfig, "health checks cannot be read: "+err.Error()))
}

// failing is a probe that says why it cannot be run.
func failing(name, kind, reason string) Probe {
	verdict := fail(reason).bounded()
	return Probe{
		Name:     name,
		Kind:     kind,
		Mode:     lifecycle.Enforce,
		Interval: defaultInterval * time.Second,
		Timeout:  time.Second,
		Check:    func(context.Context) Verdict { return verdict },
		Broken:   verdict.Reason,
	}
}

// parseSettings decodes one probe strictly: a field that is misspelt or there
// twice would make the check weaker than it was meant. null is "not set".
func parseSettings(raw jsontext.Value) (settings, error) {
	s := defaults()
	if err := noDuplicates(raw); err != nil {
		return s, err
	}
	if raw.Kind() != '{' {
		return s, errors.New("the probe is not a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&s)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return s, fmt.Errorf("%s: %s is needed, this is a JSON %s", wrong.Field, inWords(wrong.Type), wrong.Value)
	case err != nil:
		return s, fmt.Errorf("the probe cannot be read: %w", err)
	}
	return s, s.validate()
}

// inWords is what a field takes, for people who write JSON.
func inWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list of texts"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a text"
}

func noDuplicates(raw jsontext.Value) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(raw))
	if _, err := decoder.ReadValue(); err != nil {
		return fmt.Errorf("the probe cannot be read: %w", err)
	}
	return nil
}
