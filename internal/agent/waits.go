package agent

import (
	"maps"
	"slices"
	"sync"
	"time"

	"nixfleet/internal/wire"
)

// waits is what workers wait for, by worker.
type waits struct {
	mu sync.Mutex
	of map[string]Waiting
}

// Waiting is one thing that is waited for.
type Waiting struct {
	On     wire.WaitingOn `json:"on"`
	Why    string         `json:"why,omitempty"`
	Since  time.Time      `json:"since"`
	Worker string         `json:"worker,omitempty"`
}

// set notes that a worker waits, and tells whether it waited for something else
// before.
func (w *waits) set(worker string, on wire.WaitingOn, why string) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old, waited := w.of[worker]
	next := Waiting{On: on, Why: why, Since: time.Now().UTC().Truncate(time.Second), Worker: worker}
	if waited && old.On == on {
		next.Since = old.Since
	}
	if w.of == nil {
		w.of = map[string]Waiting{}
	}
	w.of[worker] = next
	return !waited || old.On != on
}

// clear notes that a worker waits no more, and tells whether it did.
func (w *waits) clear(worker string) (waited bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, waited = w.of[worker]
	delete(w.of, worker)
	return waited
}

// list gives all waits, by worker.
func (w *waits) list() []Waiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Waiting
	for _, worker := range slices.Sorted(maps.Keys(w.of)) {
		all = append(all, w.of[worker])
	}
	return all
}
