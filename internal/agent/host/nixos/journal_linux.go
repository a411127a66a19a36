package nixos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"time"

	"nixfleet/internal/agent/host"
)

const journalTimeout = 5 * time.Second

// lastWords is journalTail, read once of a run that has ended: steps look at a unit
// several times, and a way back must not wait for journalctl each time.
func (m *Machine) lastWords(ctx context.Context, s host.Slot, run string) string {
	m.mu.Lock()
	known := m.said[s]
	m.mu.Unlock()
	if known.run == run && run != "" {
		return known.words
	}
	words, ok := m.journalTail(ctx, run)
	if ok {
		m.mu.Lock()
		m.said[s] = said{run, words}
		m.mu.Unlock()
	}
	return words
}

// said is what a run wrote last.
type said struct{ run, words string }

// journalTail is the last of what a run wrote. It is found by a field that every
// line of the unit has: systemd's own id is missing from the lines of programs
// that end at once, which are the ones that matter. A journal that cannot be read
// changes nothing about what happened: then there are no words, and ok is false.
func (m *Machine) journalTail(ctx context.Context, run string) (words string, ok bool) {
	if run == "" {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	// What was written a moment ago may not have been stored yet. Where journald
	// does not answer, what is there has to do.
	m.run(ctx, command{name: "journalctl", args: []string{"--sync"}})
	output, err := m.run(ctx, command{name: "journalctl", args: []string{
		"--output=json", "--output-fields=MESSAGE", "--all", "--lines=200", "--quiet", "--no-pager", envRun + "=" + run,
	}})
	if err != nil {
		return "(its output cannot be read: " + host.Tail([]byte(err.Error())) + ")", false
	}
	return host.Tail(journalText(output)), true
}

// journalText puts the messages of journalctl's JSON lines together. A message
// is a string, an array of bytes when it is no text, or null.
func journalText(output []byte) []byte {
	var text bytes.Buffer
	scanner := bufio.NewScanner(bytes.NewReader(output))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var line struct {
			Message json.RawMessage `json:"MESSAGE"`
		}
		if json.Unmarshal(scanner.Bytes(), &line) != nil {
			continue // cut off in the middle
		}
		var s string
		var numbers []int // not []byte, which would be read as base 64
		switch {
		case json.Unmarshal(line.Message, &s) == nil:
			text.WriteString(s)
		case json.Unmarshal(line.Message, &numbers) == nil:
			for _, n := range numbers {
				text.WriteByte(byte(n))
			}
		}
		text.WriteByte('\n')
	}
	return text.Bytes()
}
