package trust

import (
	"fmt"
	"maps"
	"os"
	"time"

	"nixfleet/internal/durable"

	"github.com/go-json-experiment/json"
)

// Marks are all that keeps a host or a control plane from being taken back. They
// are kept in two places, so that losing one of them does not lose them: write
// the file before the commit that relies on it.
type Marks struct {
	Manifest    Mark            `json:"manifest,omitzero"`  // of a host: one over all channels
	Channels    map[string]Mark `json:"channels,omitempty"` // of a control plane: one for each channel's manifests
	Fleet       Mark            `json:"fleet,omitzero"`
	Revocations Mark            `json:"revocations,omitzero"`
	Nonces      Mark            `json:"nonces,omitzero"`

	// ClockFloor is the last time at which the clock was synchronised. A time
	// that nobody vouched for must not be put here: it would stay for ever.
	ClockFloor time.Time `json:"clockFloor,omitzero"`

	// The evidence chain: how many records it has, and the hash of the last.
	ChainLength int64  `json:"chainLength,omitzero"`
	ChainHead   string `json:"chainHead,omitempty"`
}

// Higher takes the higher of each from both; of equals, that of m.
func (m Marks) Higher(o Marks) Marks {
	m.Manifest = m.Manifest.Higher(o.Manifest)
	m.Fleet = m.Fleet.Higher(o.Fleet)
	m.Revocations = m.Revocations.Higher(o.Revocations)
	m.Nonces = m.Nonces.Higher(o.Nonces)
	m.Channels = maps.Clone(m.Channels)
	for channel, mark := range o.Channels {
		if m.Channels == nil {
			m.Channels = map[string]Mark{}
		}
		m.Channels[channel] = m.Channels[channel].Higher(mark)
	}
	if o.ClockFloor.After(m.ClockFloor) {
		m.ClockFloor = o.ClockFloor
	}
	if o.ChainLength > m.ChainLength {
		m.ChainLength, m.ChainHead = o.ChainLength, o.ChainHead
	}
	return m
}

// Floor is the time below which a clock is wrong: the newest of the build's
// date, what was accepted, and the last synchronised time.
func (m Marks) Floor(build time.Time) time.Time {
	floor := build
	for _, t := range []time.Time{m.Manifest.SignedAt, m.Fleet.SignedAt, m.Revocations.SignedAt, m.Nonces.SignedAt, m.ClockFloor} {
		if t.After(floor) {
			floor = t
		}
	}
	for _, mark := range m.Channels {
		if mark.SignedAt.After(floor) {
			floor = mark.SignedAt
		}
	}
	return floor
}

// LoadMarks reads a marks file. One that is missing is fs.ErrNotExist: whether
// that is a new host or a loss is for the caller to say.
func LoadMarks(path string) (Marks, error) {
	doc, err := os.ReadFile(path)
	if err != nil {
		return Marks{}, fmt.Errorf("marks: %w", err)
	}
	var m Marks
	if err := json.Unmarshal(doc, &m); err != nil {
		return Marks{}, fmt.Errorf("marks %s: %w", path, err)
	}
	return m, nil
}

// Save replaces the marks file. When it returns, the new marks are durable;
// whatever happens before, the file holds the old or the new.
func (m Marks) Save(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save marks: %w", err)
		}
	}()
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, doc, 0o600)
}
